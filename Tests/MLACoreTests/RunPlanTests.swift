import CMLAPrefill
import MLAKernelABI
import MLATestSupport
import XCTest

@testable import MLACore

/// What a batch's runs share, and when they must not.
final class RunPlanTests: XCTestCase {
  override func tearDownWithError() throws {
    try HostSettings.setThreads(0)
  }

  func testEachRunAndTypeHasOnePlan() throws {
    let plans = try RunPlans(chunks: 2)
    var made = 0
    func plan(_ run: RunPlans.Run, _ type: ElementType) throws -> RunPlan {
      try plans.plan(of: run, type) { threads throws(MLAError) in
        made += 1
        return try emptyPlan(threads)
      }
    }
    let runs: [RunPlans.Run] = [.newTokens, .chunk(0), .chunk(1)]
    let types: [ElementType] = [.bfloat16, .float16, .float32]
    let first = try runs.map { run in try types.map { try plan(run, $0) } }
    XCTAssertEqual(made, 9)
    for (run, known) in zip(runs, first) {
      for (type, known) in zip(types, known) { XCTAssertTrue(try plan(run, type) === known) }
    }
    XCTAssertEqual(made, 9)
    XCTAssertEqual(Set(first.flatMap { $0 }.map(ObjectIdentifier.init)).count, 9)
  }

  func testAnotherNumberOfThreadsIsAnotherPlan() throws {
    let plans = try RunPlans(chunks: 0)
    func planned(for threads: Int32) throws -> RunPlan {
      try HostSettings.setThreads(threads)
      return try plans.plan(of: .newTokens, .bfloat16) { threads throws(MLAError) in
        try self.emptyPlan(threads)
      }
    }
    let first = try planned(for: 3)
    XCTAssertEqual(first.mostThreads, 3)
    XCTAssertTrue(try planned(for: 3) === first)
    XCTAssertEqual(try planned(for: 5).mostThreads, 5)
    XCTAssertEqual(try planned(for: 3).mostThreads, 3)
  }

  /// A chunk that was announced otherwise, of as many requests, of the same rows, or of
  /// fewer: what is run is what comes with the run.
  func testAnAnnouncedChunkMayComeOtherwise() throws {
    var random = SplitMix64(seed: 10)
    func problem(_ queries: [Int], _ keys: [Int]) -> BatchProblem {
      BatchProblem(
        .bfloat16, numHeads: 2, dims: (64, 32, 64), queryLengths: queries, keyLengths: keys,
        &random)
    }
    let announced = problem([3, 70], [200, 90])
    let others = [
      problem([3, 70], [90, 200]), problem([70, 3], [200, 90]), problem([4, 80], [200, 91]),
      problem([73], [290]),
    ]
    for name in BuiltInBackend.allCases.map(\.name) {
      let backend = try announced.makeBackend(name)
      let expected = try announced.run(backend)
      for (index, other) in others.enumerated() {
        let own = try other.run(other.makeBackend(name))
        let result = try other.run(backend)
        XCTAssertEqual(result.out.bits, own.out.bits, "\(name), \(index)")
        XCTAssertEqual(result.lse.bits, own.lse.bits, "\(name), \(index)")
      }
      XCTAssertEqual(try announced.run(backend).out.bits, expected.out.bits, name)
    }
  }

  /// FLASHINFER's plans are there with the batch, others' with the first run.
  func testWhoPlansAhead() throws {
    let config = smallConfig
    for builtIn in BuiltInBackend.allCases {
      let backend = try NativeBackend(contract: builtIn.makeContract(config), config: config)
      let batch = try ([0, 5, 12] as [Int32]).withUnsafeBufferPointer { rows in
        var raw = mla_prefill_metadata()
        raw.struct_size = UInt32(MemoryLayout<mla_prefill_metadata>.size)
        (raw.num_requests, raw.query_start_loc) = (2, rows.baseAddress)
        return try backend.prepareMetadata(PrefillMetadata(raw), &raw)
      }
      let known = batch.plans.known(RunPlans.Run.newTokens, .bfloat16, threads: HostSettings.threads)
      XCTAssertEqual(known != nil, builtIn == .flashInfer, builtIn.name)
    }
  }

  /// TOKENSPEED_MLA has run once when it has been made.
  func testWhoWarmsUp() throws {
    let config = smallConfig
    for builtIn in BuiltInBackend.allCases {
      ScratchArena.releaseIdle()
      let backend = try NativeBackend(contract: builtIn.makeContract(config), config: config)
      XCTAssertEqual(ScratchArena.idleBytes > 0, builtIn == .tokenspeedMLA, builtIn.name)
      ScratchArena.releaseIdle()
      try backend.warmUp()
      XCTAssertGreaterThan(ScratchArena.idleBytes, 0, builtIn.name)
    }
  }

  private var smallConfig: BackendConfig {
    BackendConfig(
      numHeads: 2, scale: 0.1, kvLoraRank: 0, qkNopeHeadDim: 64, qkRopeHeadDim: 32, vHeadDim: 64,
      maxISA: 0, ignoresOverride: false, device: .cpu)
  }

  private func emptyPlan(_ threads: Int) throws(MLAError) -> RunPlan {
    let kernel = KernelTables.table(cappedAt: 0).kernels.bf16
    let dims = mla_kernel_dims(qk_head_dim: 96, v_head_dim: 64)
    let schedule = try TileSchedule(
      [], numHeads: 1, shape: kernel.shape(dims), split: .never, threads: threads)
    return RunPlan(
      kernel: kernel, schedule: schedule, memory: AttentionMemory(schedule, kernel, dims),
      mostThreads: threads)
  }
}
