import MLAKernelABI
import MLATestSupport
import SoftwareAMX
import XCTest

/// How many tile instructions a block of 512 keys costs a panel of 32 queries.
/// Speed needs an AMX CPU to be measured; that nothing is loaded or stored
/// twice can be counted anywhere.
final class TileInstructionTests: XCTestCase {
  override func setUpWithError() throws {
    try requireAMX()
    try XCTSkipIf(software_amx_install() == SOFTWARE_AMX_HARDWARE, "the CPU does not count")
  }

  private func count(_ attention: AttentionCase) -> software_amx_counters {
    let tensors = AttentionTensors(attention)
    software_amx_reset_counters()
    _ = AMXKernel(attention.input).run(attention, tensors)
    return software_amx_read_counters()
  }

  func testWholeBlock() {
    let one = count(AttentionCase(queries: 256, keys: 512))
    let two = count(AttentionCase(queries: 256, keys: 1024))
    let panels: UInt64 = 8
    // 16 groups of keys x 6 steps x 4, and 16 groups x 4 steps x 4.
    XCTAssertEqual(two.products - one.products, panels * (384 + 256))
    // Two left operands for four products, and nothing else is streamed.
    XCTAssertEqual(two.streaming_loads - one.streaming_loads, panels * 320)
    // Two right operands for four products, and the outputs once.
    XCTAssertEqual(two.loads - one.loads, panels * (320 + 16))
    // Scores once, outputs once.
    XCTAssertEqual(two.stores - one.stores, panels * (64 + 16))
    XCTAssertEqual(two.configures, 1)
    XCTAssertEqual(two.releases, 1)
  }

  /// Of fp16 four products of scores and three with values, for which two operands
  /// change each time.
  func testWholeBlockOfFloat16() {
    let one = count(AttentionCase(input: .float16, queries: 256, keys: 512))
    let two = count(AttentionCase(input: .float16, queries: 256, keys: 1024))
    let panels: UInt64 = 8
    XCTAssertEqual(two.products - one.products, panels * (4 * 384 + 3 * 256))
    // Of 96 steps of scores three pairs of left operands, of 64 of values two.
    XCTAssertEqual(two.streaming_loads - one.streaming_loads, panels * (96 * 6 + 64 * 4))
    // Of each step two pairs of right operands, and the outputs once.
    XCTAssertEqual(two.loads - one.loads, panels * (96 * 4 + 64 * 4 + 16))
    XCTAssertEqual(two.stores - one.stores, panels * (64 + 16))
  }

  /// Of fp32 six products of either.
  func testWholeBlockOfFloat32() {
    let one = count(AttentionCase(input: .float32, queries: 256, keys: 512))
    let two = count(AttentionCase(input: .float32, queries: 256, keys: 1024))
    let panels: UInt64 = 8
    XCTAssertEqual(two.products - one.products, panels * 6 * (384 + 256))
    // Of 160 steps three pairs of left operands and four of right ones.
    XCTAssertEqual(two.streaming_loads - one.streaming_loads, panels * 160 * 6)
    XCTAssertEqual(two.loads - one.loads, panels * (160 * 8 + 16))
    XCTAssertEqual(two.stores - one.stores, panels * (64 + 16))
  }

  /// 512 selected rows in two calls, of 8 groups each.
  func testRows() {
    let many = countRows(heads: 64)
    let panels: UInt64 = 2
    // 18 steps of scores and 16 of values for each group.
    XCTAssertEqual(many.products, panels * 16 * (18 + 16) * 4)
    XCTAssertEqual(many.streaming_loads, panels * 16 * (18 + 16) * 2)
    // Outputs by the second call alone.
    XCTAssertEqual(many.loads, panels * (16 * (18 + 16) * 2 + 64))
    XCTAssertEqual(many.stores, panels * (16 * 4 + 2 * 64))
    // 16 heads are one operand of the two.
    let few = countRows(heads: 16)
    XCTAssertEqual(few.products, 16 * (18 + 16) * 2)
    XCTAssertEqual(few.streaming_loads, 16 * (18 * 2 + 16))
    XCTAssertEqual(few.loads, 16 * (18 + 16 * 2) + 64)
  }

  private func countRows(heads: Int) -> software_amx_counters {
    let problem = RowsProblem(
      KernelCase(isa: Int32(MLA_FAMILY_AMX), format: .bfloat16), of: amxTable,
      RowsShape(qkDim: 576, vDim: 512, queries: heads, rows: 512), seed: 1, wholeCalls: true)
    software_amx_reset_counters()
    _ = problem.run()
    return software_amx_read_counters()
  }

  /// Keys that no query of a panel sees cost it nothing.
  func testCausalTriangle() {
    let counters = count(AttentionCase(queries: 512, keys: 512, causalOffset: 0))
    let groups: UInt64 = 16 * 17 / 2
    XCTAssertEqual(counters.products, groups * (24 + 16))
  }
}
