import XCTest

@testable import MLACore

/// Which plan serves which batch, and what its workspace is.
final class CuDNNSizesTests: XCTestCase {
  private func sizes(_ requests: Int, _ queries: Int, _ keys: Int) -> CuDNNAttention.Sizes {
    CuDNNAttention.Sizes(requests: requests, queries: queries, keys: keys, lseHeadStride: 7)
  }

  /// Nothing of a batch is more than its plan's.
  func testPlansAreForAsMuchOrMore() throws {
    for (requests, plan) in [(1, 64), (64, 64), (65, 512), (512, 512), (513, 4096), (4096, 4096)] {
      for (rows, most) in [(2, 128), (128, 128), (129, 131_072), (131_072, 131_072)] {
        let of = try XCTUnwrap(sizes(requests, rows, 2).ofPlan)
        XCTAssertEqual([of.requests, of.queries, of.keys], [plan, most, 128])
        let on = try XCTUnwrap(sizes(requests, 2, rows).ofPlan)
        XCTAssertEqual([on.requests, on.queries, on.keys], [plan, 128, most])
      }
    }
  }

  func testBatchesWithoutPlan() {
    for (requests, queries, keys) in [
      (4097, 2, 2), (1, 131_073, 2), (1, 2, 131_073), (1, 1, 2), (1, 2, 1), (1, 0, 0), (0, 0, 0),
    ] {
      XCTAssertNil(sizes(requests, queries, keys).ofPlan, "\(requests) x \(queries) on \(keys)")
      XCTAssertEqual(CuDNNRun.Memory.bytes(sizes(requests, queries, keys)), 0)
    }
  }

  /// What cuDNN 9.24 to 9.28 were seen to ask for, `make test-cudnn`.
  func testWorkspacesAreEnough() {
    for (requests, bytes) in [(1, 17408), (64, 17408), (300, 133_888), (4096, 1_065_728)] {
      XCTAssertGreaterThanOrEqual(
        CuDNNRun.Memory.bytes(sizes(requests, 200, 200)),
        CuDNNRun.Memory.bytes(requests: requests, plan: bytes))
    }
  }

  /// None where a query sees no key.
  func testMasks() throws {
    func mask(_ queries: [Int], _ keys: [Int], _ causal: CausalMask) throws -> CuDNNAttention.Mask? {
      try CuDNNAttention.Mask(
        RequestSpans(
          queries: RowOffsets(lengths: queries), keys: RowOffsets(lengths: keys), causal: causal))
    }
    XCTAssertEqual(try mask([3, 0, 2], [3, 0, 2], .end), .topLeft)
    XCTAssertEqual(try mask([3, 0, 2], [3, 0, 2], .start), .topLeft)
    XCTAssertEqual(try mask([3, 0, 2], [3, 4, 9], .end), .bottomRight)
    XCTAssertNil(try mask([3, 0, 2], [5, 0, 1], .end))
    XCTAssertNil(try mask([3, 0, 2], [3, 4, 9], .start))
    XCTAssertEqual(try mask([3, 0, 2], [5, 7, 1], .none), CuDNNAttention.Mask.none)
  }

  /// Two attentions have one file only where they are one.
  func testFilesTellAttentionsApart() {
    func rows(_ stride: Int) -> CuDNNAttention.Rows {
      CuDNNAttention.Rows(rowStride: stride, headStride: 128)
    }
    func attention(
      type: CuDNN.DataType = .bfloat16, heads: Int = 2, qk: Int = 192, v: Int = 128,
      strides: [Int] = [384, 384, 512, 256], mask: CuDNNAttention.Mask = .topLeft, givesLSE: Bool = true
    ) -> CuDNNAttention {
      CuDNNAttention(
        type: type, heads: heads, qkHeadDim: qk, vHeadDim: v, q: rows(strides[0]),
        k: rows(strides[1]), v: rows(strides[2]), out: rows(strides[3]), mask: mask,
        givesLSE: givesLSE)
    }
    let all = [
      attention(), attention(type: .float16), attention(heads: 3), attention(qk: 128),
      attention(v: 192), attention(strides: [392, 384, 512, 256]),
      attention(strides: [384, 392, 512, 256]), attention(strides: [384, 384, 520, 256]),
      attention(strides: [384, 384, 512, 264]), attention(mask: .none), attention(mask: .bottomRight),
      attention(givesLSE: false),
    ]
    var names = all.map { $0.text(sizes(64, 128, 128)) }
    for other in [sizes(512, 128, 128), sizes(64, 131_072, 128), sizes(64, 128, 131_072)] {
      names.append(all[0].text(other))
    }
    XCTAssertEqual(Set(names).count, names.count)
  }
}
