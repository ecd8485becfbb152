import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each table's conversion between formats: exact, or rounded to nearest even.
final class ConvertKernelTests: XCTestCase {
  private static let tables = Set(KernelCase.onThisHost.map(\.isa)).sorted()

  func testEveryFormatIntoEveryOther() {
    for isa in Self.tables {
      for (seed, source) in ElementFormat.allCases.enumerated() {
        for target in ElementFormat.allCases {
          var random = SplitMix64(seed: UInt64(seed))
          let rows = PoisonedTensor(source, rows: 9, dim: 37, rowGap: 3)
          rows.fillNormal(&random, deviation: 30)
          // A power of two: the product is exact, and rounded once.
          let out = convert(rows, to: target, times: 0.25, isa)
          for row in 0..<9 {
            for d in 0..<37 {
              let exact = rows[row, 0, d] * 0.25
              XCTAssertTrue(
                target.isNearest(out[row, 0, d], to: exact, slack: 0),
                "table \(isa), \(source.name) \(exact) to \(target.name): \(out[row, 0, d])")
            }
          }
          XCTAssertTrue(out.surroundingsAreIntact, "table \(isa)")
        }
      }
    }
  }

  func testEveryCodeOfFloat8() {
    for isa in Self.tables {
      let codes = PoisonedTensor(.float8E4M3FN, rows: 1, dim: 256)
      for code in 0..<256 {
        codes.pointer().storeBytes(of: UInt8(code), toByteOffset: code, as: UInt8.self)
      }
      let out = convert(codes, to: .float32, times: 1, isa)
      for code in 0..<256 {
        let (value, exact) = (out[0, 0, code], codes[0, 0, code])
        XCTAssertTrue(
          exact.isNaN ? value.isNaN : value == exact && value.sign == exact.sign,
          "table \(isa), code \(code): \(value), not \(exact)")
      }
    }
  }

  private func convert(
    _ rows: PoisonedTensor, to target: ElementFormat, times multiplier: Float, _ isa: Int32
  ) -> PoisonedTensor {
    let out = PoisonedTensor(target, rows: rows.rows, dim: rows.dim, rowGap: 4)
    var args = mla_convert_args(
      rows: rows.pointer(), row_stride: Int64(rows.rowStride), num_rows: Int64(rows.rows),
      row_dim: Int64(rows.dim), format: rows.format.rawValue, out_format: target.rawValue,
      multiplier: multiplier, out: out.pointer(), out_stride: Int64(out.rowStride))
    KernelTables.table(cappedAt: isa).pointee.convert(&args)
    return out
  }
}
