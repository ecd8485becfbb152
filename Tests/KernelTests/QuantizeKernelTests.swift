import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each table's quantization by groups: the very codes and scales of its
/// definition.
final class QuantizeKernelTests: XCTestCase {
  func testCodesAndScalesOfEveryFormat() {
    for isa in Set(KernelCase.onThisHost.map(\.isa)).sorted() {
      for seed: UInt64 in 0..<40 {
        var random = SplitMix64(seed: seed)
        let rows = PoisonedTensor(
          random.pick(ElementFormat.inputs), rows: 4, dim: random.int(1...300),
          rowGap: random.int(0...3))
        rows.fillNormal(&random, deviation: random.pick([1e-39, 1e-3, 0.02, 1, 1e4]))
        // Behind numbers, and before them.
        for row in 0..<(seed % 2 == 0 ? rows.rows : 0) {
          for d in 0..<rows.dim where random.chance(0.1) { rows[row, 0, d] = .nan }
        }
        check(rows, group: random.pick([1, 16, 100, 128]), isa, "seed \(seed)")
      }
    }
  }

  func testWhatIsNoOrdinaryNumber() {
    let patterns: [[Double]] = [
      [0, -0.0, 0], [1e-45, 0, -1e-45], [.nan, 3, -448], [.nan, .nan, .nan],
      [.infinity, 5, -1e38], [-.infinity, .nan, 1], [3.4e38, -3.4e38, 1e30],
      // Around powers of two, and the least scale.
      [448, 1, -447], [448.0001, 1, 2], [447.9999, 3, 0], [0x1p-4, 2, 3.5], [0.0546875, 0, -1e-3],
      [0.05469, -1e-3, 1e-4], [0.0447, 0.0448, 1e-9],
    ]
    for isa in Set(KernelCase.onThisHost.map(\.isa)).sorted() {
      for pattern in patterns {
        let rows = PoisonedTensor(.float32, rows: 1, dim: 40)
        for d in 0..<40 { rows[0, 0, d] = pattern[d % 3] }
        check(rows, group: 20, isa, "\(pattern)")
      }
    }
  }

  private func check(_ rows: PoisonedTensor, group: Int, _ isa: Int32, _ what: String) {
    let groups = (rows.dim + group - 1) / group
    // A row's codes, its scales behind them at any alignment.
    let out = PoisonedTensor(.float8E4M3FN, rows: rows.rows, dim: rows.dim + 4 * groups, rowGap: 3)
    var args = mla_quantize_args(
      rows: rows.pointer(), row_stride: Int64(rows.rowStride), num_rows: Int64(rows.rows),
      row_dim: Int64(rows.dim), format: rows.format.rawValue, out: out.pointer(),
      out_stride: Int64(out.rowStride), scales: out.pointer() + rows.dim,
      scale_stride: Int64(out.rowStride), scale_group: Int64(group))
    KernelTables.table(cappedAt: isa).kernels.quantize(&args)
    for row in 0..<rows.rows {
      for first in stride(from: 0, to: rows.dim, by: group) {
        let values = (first..<min(first + group, rows.dim)).map { rows[row, 0, $0] }
        let expected = QuantizedGroup(values)
        let place = out.pointer(row: row)
        let scale = (place + rows.dim + first / group * 4).loadUnaligned(as: Float.self)
        XCTAssertEqual(scale, expected.scale, "table \(isa), \(what), row \(row)")
        for (i, code) in expected.codes.enumerated() {
          let bits = out.format.loadBits(place + first + i)
          XCTAssertEqual(
            values[i].isNaN ? bits & 0x7F : bits, code,
            "table \(isa), \(what), \(values[i]) times 1 / \(scale)")
        }
      }
    }
    XCTAssertTrue(out.surroundingsAreIntact, "table \(isa), \(what)")
  }
}
