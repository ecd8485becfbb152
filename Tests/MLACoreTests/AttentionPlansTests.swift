import MLAShims
import MLATestSupport
import XCTest

@testable import MLACore

/// What is kept of calls without an object, and how their requests are worked on.
final class AttentionPlansTests: XCTestCase {
  private let shape = AttentionShape(
    type: .bfloat16, numHeads: 8, numKeyHeads: 2, qkHeadDim: 16, vHeadDim: 16, maxISA: 0)

  override func setUp() { AttentionPlans.drop() }

  override func tearDown() {
    _ = mla_shim_set_short(0)
    AttentionPlans.drop()
  }

  func testPlansAreFoundAgainByAllThatTheyDependOn() throws {
    let plan = try AttentionPlans.plan(for: key([(3, 40), (1, 7)]))
    XCTAssertTrue(try AttentionPlans.plan(for: key([(3, 40), (1, 7)])) === plan)
    var others = [
      try key([(3, 40), (1, 8)]), try key([(1, 7), (3, 40)]), try key([(3, 40)]),
      try key([(3, 40), (1, 7)], causal: .none), try key([(3, 40), (1, 7)], threads: 3),
    ]
    for change in [
      AttentionShape(
        type: .float16, numHeads: 8, numKeyHeads: 2, qkHeadDim: 16, vHeadDim: 16, maxISA: 0),
      AttentionShape(
        type: .bfloat16, numHeads: 8, numKeyHeads: 4, qkHeadDim: 16, vHeadDim: 16, maxISA: 0),
      AttentionShape(
        type: .bfloat16, numHeads: 8, numKeyHeads: 2, qkHeadDim: 16, vHeadDim: 24, maxISA: 0),
      AttentionShape(
        type: .bfloat16, numHeads: 8, numKeyHeads: 2, qkHeadDim: 16, vHeadDim: 16, maxISA: 1),
    ] { others.append(AttentionKey(plan.key.requests, change, mostThreads: 2)) }
    for other in others {
      XCTAssertNil(AttentionPlans.known(other))
      XCTAssertFalse(try AttentionPlans.plan(for: other) === plan)
    }
  }

  func testABoundedNumberIsKept() throws {
    weak var first: AttentionPlan?
    do {
      let plan = try AttentionPlans.plan(for: key([(1, 1)]))
      first = plan
    }
    for keys in 2...16 { _ = try AttentionPlans.plan(for: key([(1, keys)])) }
    XCTAssertNotNil(first)
    _ = try AttentionPlans.plan(for: key([(1, 17)]))
    XCTAssertNil(first, "the oldest goes")
    XCTAssertNotNil(AttentionPlans.known(try key([(1, 2)])))
    AttentionPlans.drop()
    XCTAssertNil(AttentionPlans.known(try key([(1, 2)])))
  }

  func testWhatIsLargeOrMadeInNeedIsNotKept() throws {
    let most = AttentionPlans.mostRequests
    for (requests, isKept) in [(most, true), (most + 1, false)] {
      let large = try key(Array(repeating: (1, 9), count: requests))
      _ = try AttentionPlans.plan(for: large)
      XCTAssertEqual(AttentionPlans.known(large) != nil, isKept)
    }
    let small = try key([(2, 9)])
    _ = mla_shim_set_short(1)
    _ = try AttentionPlans.plan(for: small)
    _ = mla_shim_set_short(0)
    XCTAssertNil(AttentionPlans.known(small))
  }

  /// Single tokens of a group are one tile, long prompts and heads by themselves are not;
  /// of several tokens it is what fills the kernels' vectors better.
  func testForms() {
    func form(_ queries: Int, _ keys: Int, _ heads: Int, _ causal: CausalMask = .end)
      -> AttentionForm
    {
      let span = RequestSpan(
        queryBegin: 0, queryCount: queries, keyBegin: 0, keyCount: keys, causal: causal)
      return AttentionForm.of(span, headsPerKeyHead: heads)
    }
    for heads in [2, 4, 16, 128, 65536] { XCTAssertEqual(form(1, 4096, heads), .byGroup) }
    for queries in [1, 3, 17, 300] { XCTAssertEqual(form(queries, 4096, 1), .byHead) }
    XCTAssertEqual(form(4, 4096, 4), .byGroup)
    XCTAssertEqual(form(17, 4096, 4), .byGroup)
    XCTAssertEqual(form(16, 4096, 16), .byHead)
    XCTAssertEqual(form(2048, 4096, 8), .byHead)
    XCTAssertEqual(form(40, 40, 8), .byHead, "keys that not all tokens see are dear")
    XCTAssertEqual(form(1 << 31, 1 << 31, 65536, .none), .byHead, "nothing overflows")
  }

  /// Whatever else is in the batch: its bits depend on it.
  func testARequestIsSplitAsItIsAlone() throws {
    let shape = AttentionShape(
      type: .bfloat16, numHeads: 2, numKeyHeads: 2, qkHeadDim: 16, vHeadDim: 16, maxISA: 0)
    func ranges(others: Int) throws -> Int? {
      let lengths = [(3, 9000)] + Array(repeating: (1, 10), count: others)
      let plan = try AttentionPlan(key(lengths, of: shape))
      let segments = try XCTUnwrap(plan.byHead).schedule.segments
      return segments.first { $0.request.span.keyCount == 9000 }?.request.ranges
    }
    let alone = try XCTUnwrap(ranges(others: 0))
    XCTAssertGreaterThan(alone, 4)
    for others in [1, 9, 100] { XCTAssertEqual(try ranges(others: others), alone) }
  }

  private func key(
    _ lengths: [(Int, Int)], of shape: AttentionShape? = nil, causal: CausalMask = .end,
    threads: Int = 2
  ) throws -> AttentionKey {
    var (queries, keys) = (0, 0)
    let spans = lengths.map { lengths in
      defer { (queries, keys) = (queries + lengths.0, keys + lengths.1) }
      return RequestSpan(
        queryBegin: queries, queryCount: lengths.0, keyBegin: keys, keyCount: lengths.1,
        causal: causal)
    }
    return AttentionKey(
      try FixedArray(spans, for: "requests"), shape ?? self.shape, mostThreads: threads)
  }
}
