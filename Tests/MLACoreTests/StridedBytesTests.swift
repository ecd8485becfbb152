import MLATestSupport
import XCTest

@testable import MLACore

/// What two views share, and whether a view repeats itself, against sets of bytes.
final class StridedBytesTests: XCTestCase {
  func testSharedBytesAreThoseOfTheSets() {
    var random = SplitMix64(seed: 1)
    var shared = 0
    for _ in 0..<20_000 {
      let (a, b) = (view(&random), view(&random))
      let expected = !Set(bytes(of: a)).isDisjoint(with: bytes(of: b))
      shared += expected ? 1 : 0
      let got = StridedBytes(a).sharesBytes(with: StridedBytes(b))
      XCTAssertEqual(got, expected, "\(a.shape) \(a.strides) and \(b.shape) \(b.strides)")
      if got != expected { return }
    }
    // Neither answer is the only one that was asked for.
    XCTAssert((4000...16_000).contains(shared), "\(shared)")
  }

  func testRepeatedBytesAreThoseOfTheSet() {
    var random = SplitMix64(seed: 2)
    var repeating = 0
    for _ in 0..<20_000 {
      let a = view(&random)
      let all = bytes(of: a)
      let expected = Set(all).count < all.count
      repeating += expected ? 1 : 0
      XCTAssertEqual(StridedBytes(a).repeatsBytes, expected, "\(a.shape) \(a.strides)")
      if StridedBytes(a).repeatsBytes != expected { return }
    }
    XCTAssert((2000...16_000).contains(repeating), "\(repeating)")
  }

  /// Where searching would take too long, the answer is the safe one.
  func testManyRowsAtUnrelatedStrides() {
    let rows = 1 << 30
    let a = tensor(shape: [rows, 2], strides: [6, 1], at: 1 << 40)
    let b = tensor(shape: [rows, 2], strides: [9, 1], at: 1 << 40 + 16)
    XCTAssert(StridedBytes(a).sharesBytes(with: StridedBytes(b)))
    let c = tensor(shape: [rows, 2], strides: [6, 1], at: 1 << 40 + 8)
    XCTAssertFalse(StridedBytes(a).sharesBytes(with: StridedBytes(c)))
  }

  private func view(_ random: inout SplitMix64) -> TensorView {
    var (shape, strides) = (Extents(), Extents())
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      let count = Int.random(in: 0...9, using: &random) == 0 ? 0 : Int.random(in: 1...4, using: &random)
      shape.append(count)
      strides.append(count > 1 ? Int.random(in: 0...30, using: &random) : 0)
    }
    return tensor(
      shape: shape, strides: strides, at: 4096 + 4 * UInt.random(in: 0...20, using: &random))
  }

  private func tensor(shape: Extents, strides: Extents, at address: UInt) -> TensorView {
    TensorView(type: .float32, shape: shape, strides: strides, address: address)
  }

  /// One entry for each byte of each element.
  private func bytes(of view: TensorView) -> [Int] {
    var starts = [Int(view.address)]
    for i in view.shape.indices {
      starts = starts.flatMap { start in
        (0..<view.shape[i]).map { start + $0 * view.strides[i] * view.type.bytes }
      }
    }
    return starts.flatMap { start in (0..<view.type.bytes).map { start + $0 } }
  }
}
