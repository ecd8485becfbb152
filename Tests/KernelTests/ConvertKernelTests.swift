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

  /// Whatever the multiplier makes of them: subnormal, infinite, anything between.
  func testEveryCodeOfFloat8() {
    var random = SplitMix64(seed: 5)
    let multipliers: [Float] =
      [1, 0x1p-100, 0x1p-101, 0x1p-126, 1e-40, 0x1p100, 0x1.fffffep100, .greatestFiniteMagnitude]
      + (0..<20).map { _ in Float(exp2(random.uniform(-9...9)) * random.uniform(1...2)) }
    let codes = PoisonedTensor(.float8E4M3FN, rows: 1, dim: 256 + 13)
    for i in 0..<codes.dim { codes.format.storeBits(UInt32(i & 0xFF), to: codes.pointer() + i) }
    for isa in Self.tables {
      let pairs = ElementFormat.inputs.flatMap { target in multipliers.map { (target, $0) } }
      for (target, multiplier) in pairs {
        let out = convert(codes, to: target, times: multiplier, isa)
        for i in 0..<codes.dim {
          let product = Float(codes[0, 0, i]) * multiplier
          let (value, exact) = (out[0, 0, i], target.value(bits: target.bits(Double(product))))
          XCTAssertTrue(
            exact.isNaN ? value.isNaN : value == exact && value.sign == exact.sign,
            "table \(isa), code \(i) times \(multiplier): \(value), not \(exact)")
        }
        XCTAssertTrue(out.surroundingsAreIntact, "table \(isa)")
      }
    }
  }

  /// Ties, subnormals, what saturates and what is no number among them.
  func testEveryBFloat16IntoFloat8() {
    let all = everyCode(of: .bfloat16)
    for isa in Self.tables {
      let out = convert(all, to: .float8E4M3FN, times: 1, isa)
      for code in 0..<1 << 16 {
        let bits = out.format.loadBits(out.pointer() + code)
        let value = all[0, 0, code]
        let expected = value.isNaN ? 0x7F | (bits & 0x80) : out.format.bits(value)
        XCTAssertEqual(bits, expected, "table \(isa), \(value)")
      }
    }
  }

  /// Subnormal, infinite and no numbers among them: all are numbers of fp32.
  func testEveryHalfPrecisionCodeIntoFloat32() {
    for all in [everyCode(of: .bfloat16), everyCode(of: .float16)] {
      for isa in Self.tables {
        let out = convert(all, to: .float32, times: 1, isa)
        for code in 0..<1 << 16 {
          let (value, exact) = (out[0, 0, code], all[0, 0, code])
          XCTAssertTrue(
            exact.isNaN ? value.isNaN : value == exact && value.sign == exact.sign,
            "table \(isa), \(all.format.name) \(exact): \(value)")
        }
      }
    }
  }

  /// Rounding must not carry into the exponent what only says which NaN it is.
  func testEveryNaNStaysOne() {
    let patterns: [UInt32] = [0x7f80_0001, 0x7f80_8000, 0x7fc0_0000, 0x7fff_ffff]
    let rows = PoisonedTensor(.float32, rows: 1, dim: 37)
    for i in 0..<rows.dim {
      rows.format.storeBits(
        patterns[i % 4] | (i % 8 < 4 ? 0 : 1 << 31), to: rows.pointer() + 4 * i)
    }
    for isa in Self.tables {
      for target in ElementFormat.allCases {
        let out = convert(rows, to: target, times: 1, isa)
        for i in 0..<rows.dim {
          XCTAssertTrue(out[0, 0, i].isNaN, "table \(isa), \(patterns[i % 4]) to \(target.name)")
        }
      }
    }
  }

  func testGroupsWithScalesOfTheirOwn() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<30 {
        var random = SplitMix64(seed: seed)
        let source = random.pick([ElementFormat.float8E4M3FN, .bfloat16])
        let target = random.pick(ElementFormat.inputs)
        let rows = PoisonedTensor(
          source, rows: 5, dim: random.int(1...300), rowGap: random.int(0...3))
        rows.fillNormal(&random, deviation: 30)
        let group = random.pick([1, 16, 100, 128])
        let groups = (rows.dim + group - 1) / group
        // As bytes among bytes: at any alignment.
        let stride = random.chance(0.3) ? 0 : groups * 4 + random.int(0...5)
        let scales = GuardedMemory(byteCount: (stride == 0 ? 0 : 4 * stride) + groups * 4)
        func scale(_ row: Int, _ group: Int) -> UnsafeMutableRawPointer {
          scales.base + (row * stride + group * 4)
        }
        for row in 0..<5 {
          for g in 0..<groups {
            scale(row, g).storeBytes(of: Float(random.normal()), as: Float.self)
          }
        }
        // 1, where rows of one format would be copied if they had no scales.
        let multiplier = random.pick([Float(0.5), 1])
        let out = convert(
          rows, to: target, times: multiplier, isa, scales: scales.base, stride: stride,
          group: group)
        for row in 0..<5 {
          for d in 0..<rows.dim {
            let own = scale(row, d / group).loadUnaligned(as: Float.self)
            let factor = Double(own * multiplier)
            XCTAssertTrue(
              target.isNearest(
                out[row, 0, d], to: rows[row, 0, d] * factor,
                slack: target == .float32 ? 0 : 0x1p-23),
              "table \(isa), seed \(seed), \(row), \(d)")
          }
        }
        XCTAssertTrue(out.surroundingsAreIntact, "table \(isa), seed \(seed)")
      }
    }
  }

  private func everyCode(of format: ElementFormat) -> PoisonedTensor {
    let all = PoisonedTensor(format, rows: 1, dim: 1 << 16)
    for code in 0..<1 << 16 {
      format.storeBits(UInt32(code), to: all.pointer() + 2 * code)
    }
    return all
  }

  private func convert(
    _ rows: PoisonedTensor, to target: ElementFormat, times multiplier: Float, _ isa: Int32,
    scales: UnsafeRawPointer? = nil, stride: Int = 0, group: Int = 0
  ) -> PoisonedTensor {
    let out = PoisonedTensor(target, rows: rows.rows, dim: rows.dim, rowGap: 4)
    var args = mla_convert_args(
      rows: rows.pointer(), row_stride: Int64(rows.rowStride), num_rows: Int64(rows.rows),
      row_dim: Int64(rows.dim), format: rows.format.rawValue, out_format: target.rawValue,
      multiplier: multiplier, out: out.pointer(), out_stride: Int64(out.rowStride), scales: scales,
      scale_stride: Int64(stride), scale_group: Int64(group))
    KernelTables.table(cappedAt: isa).kernels.convert(&args)
    return out
  }
}
