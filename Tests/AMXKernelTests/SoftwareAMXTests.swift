import MLATestSupport
import SoftwareAMX
import XCTest

/// The model of the tile instructions against the manual's pseudo code. On a CPU
/// with AMX the same tests compare the CPU with it.
final class SoftwareAMXTests: XCTestCase {
  override func setUpWithError() throws { try requireAMX() }

  private struct Shape {
    let rows: Int
    let pairs: Int
    let columns: Int
  }

  func testDotProductFollowsThePseudoCode() {
    var random = SplitMix64(seed: 1)
    let shapes = [
      Shape(rows: 16, pairs: 16, columns: 16), Shape(rows: 1, pairs: 16, columns: 16),
      Shape(rows: 16, pairs: 1, columns: 16), Shape(rows: 16, pairs: 16, columns: 1),
      Shape(rows: 5, pairs: 7, columns: 11),
    ]
    for shape in shapes {
      for exponents in [0...0, -20...20, -60...60] { compare(shape, exponents, of: 1, &random) }
    }
  }

  /// Products and sums on both sides of the smallest normal number.
  func testDotProductBelowTheNormalRange() {
    var random = SplitMix64(seed: 2)
    for pairs in [1, 16] {
      let shape = Shape(rows: 16, pairs: pairs, columns: 16)
      compare(shape, -66 ... -61, of: 0x1p-124, &random)
    }
  }

  private func compare(
    _ shape: Shape, _ exponents: ClosedRange<Int>, of size: Float, _ random: inout SplitMix64
  ) {
    let a = randomTile(&random, exponents)
    let b = randomTile(&random, exponents)
    let c = (0..<256).map { _ in (size * Float(random.normal())).bitPattern }
    let out = dot(c, a, b, shape)
    XCTAssertEqual(out, reference(c, a, b, shape), "\(shape), exponents of \(exponents)")
  }

  func testSubnormalsAreFlushedAndNaNStays() {
    let shape = Shape(rows: 16, pairs: 16, columns: 16)
    let one = bfloat16(1)
    var a = [UInt32](repeating: 0, count: 256)
    var b = a
    var c = a
    // Row 0: a subnormal input; row 1: a product below the normal range; row 2:
    // a subnormal accumulator; row 3: NaN.
    a[0] = 1
    b[0] = one
    a[16] = bfloat16(0x1p-100)
    b[1] = bfloat16(0x1p-40)
    a[16 * 2] = one
    c[16 * 2] = 1
    a[16 * 3] = 0x7fc0
    let out = dot(c, a, b, shape)
    XCTAssertEqual(out[0], 0)
    XCTAssertEqual(out[17], 0)
    XCTAssertEqual(out[16 * 2 + 2], 0)
    XCTAssertTrue(Float(bitPattern: out[16 * 3]).isNaN)
    XCTAssertEqual(out[16 * 4], 0)
  }

  func testEveryAddressingForm() {
    for form in 0..<Int(PROBE_FORMS) {
      let from = (0..<16 * 40).map { UInt32(truncatingIfNeeded: $0 &* 2_654_435_761) }
      var to = [UInt32](repeating: 7, count: 16 * 24)
      probe_copy_tile(Int32(form), from, 40 * 4, &to, 24 * 4)
      for row in 0..<16 {
        let source = form == Int(PROBE_NO_INDEX) ? 0 : row * 40
        XCTAssertEqual(Array(to[row * 24..<row * 24 + 16]), Array(from[source..<source + 16]), "form \(form)")
        XCTAssertTrue(to[row * 24 + 16..<row * 24 + 24].allSatisfy { $0 == 7 }, "form \(form)")
      }
    }
  }

  func testConfigurationIsStoredAsLoadedAndClearsTiles() {
    var config = [UInt8](repeating: 9, count: 64)
    var tile = [UInt8](repeating: 9, count: 1024)
    probe_configuration(&config, &tile)
    var expected = [UInt8](repeating: 0, count: 64)
    expected[0] = 1
    expected[16] = 64
    expected[48] = 16
    XCTAssertEqual(config, expected)
    XCTAssertTrue(tile.allSatisfy { $0 == 0 })
  }

  // MARK: Reference

  private func dot(_ c: [UInt32], _ a: [UInt32], _ b: [UInt32], _ shape: Shape) -> [UInt32] {
    let rows = Int32(shape.rows)
    var out = c
    probe_dot_bf16(
      probe_tile_shape(rows: rows, row_bytes: Int32(4 * shape.columns)),
      probe_tile_shape(rows: rows, row_bytes: Int32(4 * shape.pairs)),
      probe_tile_shape(rows: Int32(shape.pairs), row_bytes: Int32(4 * shape.columns)), c, a, b, &out)
    return out
  }

  private func reference(_ c: [UInt32], _ a: [UInt32], _ b: [UInt32], _ shape: Shape) -> [UInt32] {
    var out = c
    for m in 0..<shape.rows {
      for n in 0..<shape.columns {
        var (even, odd) = (Float(0), Float(0))
        for k in 0..<shape.pairs {
          even = flushed(even.addingProduct(value(a[16 * m + k] << 16), value(b[16 * k + n] << 16)))
          odd = flushed(
            odd.addingProduct(value(a[16 * m + k] & 0xffff_0000), value(b[16 * k + n] & 0xffff_0000)))
        }
        let sum = flushed(even + odd)
        out[16 * m + n] = flushed(value(c[16 * m + n]) + sum).bitPattern
      }
    }
    return out
  }

  private func value(_ bits: UInt32) -> Float { flushed(Float(bitPattern: bits)) }

  private func flushed(_ x: Float) -> Float {
    x.isSubnormal ? Float(sign: x.sign, exponent: 0, significand: 0) : x
  }

  private func bfloat16(_ x: Double) -> UInt32 { ElementFormat.bfloat16.bits(x) }

  private func randomTile(_ random: inout SplitMix64, _ exponents: ClosedRange<Int>) -> [UInt32] {
    func element() -> UInt32 {
      let exponent = random.int(exponents)
      return bfloat16(Double(sign: .plus, exponent: exponent, significand: random.normal()))
    }
    return (0..<256).map { _ in element() | element() << 16 }
  }
}
