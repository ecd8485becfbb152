import CMLAPrefill
import MLACore
import MLATestSupport
import XCTest

/// Every built-in backend on whole batches: right, and the same bits always.
final class BackendTests: XCTestCase {
  private let backends = BuiltInBackend.allCases.map(\.name)
  private let allDims = [(128, 64, 128), (192, 64, 256), (256, 0, 256), (64, 64, 128), (64, 32, 64), (7, 6, 9)]

  override func tearDownWithError() throws {
    try HostSettings.setThreads(0)
  }

  func testNewTokensAgainstFloat64() throws {
    var random = SplitMix64(seed: 1)
    for name in backends {
      for format in ElementFormat.inputs {
        let dims = random.pick(allDims)
        // TRTLLM_RAGGED's contract has no empty requests.
        let lengths = name == "TRTLLM_RAGGED" ? [1, 65, 130] : [0, 1, 65, 0, 130, 17]
        let problem = BatchProblem(
          format, numHeads: 3, dims: dims, queryLengths: lengths, &random)
        try check(problem, problem.makeBackend(name), "\(name) \(format.name) \(dims)")
      }
    }
  }

  func testContextChunksAgainstFloat64() throws {
    var random = SplitMix64(seed: 2)
    for name in backends {
      for format in ElementFormat.inputs {
        let dims = random.pick(allDims)
        let isRagged = name == "TRTLLM_RAGGED"
        // The last request is one that FLASHINFER and CPU split.
        let problem = BatchProblem(
          format, numHeads: 2, dims: dims, queryLengths: isRagged ? [3, 70, 5] : [3, 0, 70, 4, 5],
          keyLengths: isRagged ? [200, 90, 2100] : [200, 31, 90, 0, 2100], &random)
        try check(problem, problem.makeBackend(name), "\(name) \(format.name) \(dims)")
      }
    }
  }

  func testEveryKernelTable() throws {
    var random = SplitMix64(seed: 3)
    for isa in KernelCase.isas {
      for format in ElementFormat.inputs {
        let problem = BatchProblem(
          format, numHeads: 2, dims: (128, 64, 128), queryLengths: [37, 150], deviation: 4, &random)
        try check(problem, problem.makeBackend("CPU", maxISA: isa), "isa \(isa) \(format.name)")
      }
    }
  }

  /// Quantized once: what the same run gives in fp32, times the inverse of the scale.
  func testQuantizedOutput() throws {
    var random = SplitMix64(seed: 9)
    for name in backends {
      for isa in KernelCase.isas {
        let problem = BatchProblem(
          random.pick(ElementFormat.inputs), numHeads: 2, dims: random.pick(allDims),
          queryLengths: name == "TRTLLM_RAGGED" ? [1, 70] : [1, 0, 70], &random)
        // A result of 0 stays 0, however small the scale.
        for row in 0..<problem.v.rows { problem.v[row, 1, 3] = 0 }
        let backend = try problem.makeBackend(name, maxISA: isa)
        XCTAssertTrue(try backend.supportsQuantOutput(Int32(MLA_DTYPE_FLOAT8_E4M3FN)))
        XCTAssertFalse(try backend.supportsQuantOutput(Int32(MLA_DTYPE_BFLOAT16)))
        let exact = try problem.run(backend, outFormat: .float32)
        let quantized = try problem.run(backend, outFormat: .float8E4M3FN, outputScale: [0.021])
        // Three bits of mantissa, and nothing saturates.
        XCTAssertLessThanOrEqual(
          relativeL2(
            quantized.out.values.map { $0 * Double(Float(0.021)) }, problem.reference.out), 3.6e-2)
        for scale: Float in [0.021, 3, 1e-7, .leastNormalMagnitude] {
          let result = try problem.run(backend, outFormat: .float8E4M3FN, outputScale: [scale])
          let what = "\(name) isa \(isa) scale \(scale)"
          XCTAssertEqual(
            result.out.bits,
            float8Bits(of: exact.out, times: 1 / scale), what)
          XCTAssertEqual(result.lse.bits, exact.lse.bits, what)
          XCTAssertTrue(result.out.surroundingsAreIntact, what)
        }
      }
    }
  }

  /// Partial results are fp32; what they come to is quantized.
  func testQuantizedOutputOfASplitRequest() throws {
    var random = SplitMix64(seed: 10)
    let problem = BatchProblem(
      .bfloat16, numHeads: 1, dims: (64, 32, 64), queryLengths: [2100], &random)
    let backend = try problem.makeBackend("CPU")
    let exact = try problem.run(backend, outFormat: .float32)
    let result = try problem.run(backend, outFormat: .float8E4M3FN, outputScale: [0.01])
    XCTAssertEqual(result.out.bits, float8Bits(of: exact.out, times: 1 / 0.01))
  }

  /// The bits of a request depend on nothing but the request.
  func testSameBitsForAnyThreadsAndBatch() throws {
    var random = SplitMix64(seed: 4)
    let lengths = [40, 1, 200, 64, 13, 96, 129]
    // Of the longest every backend splits the keys.
    let keys = [1100, 64, 2300, 9000, 1, 65, 3000]
    for (name, keyLengths) in backends.flatMap({ [($0, nil), ($0, keys)] }) {
      let problem = BatchProblem(
        .bfloat16, numHeads: 2, dims: (64, 32, 64), queryLengths: lengths, keyLengths: keyLengths,
        &random)
      let backend = try problem.makeBackend(name)
      try HostSettings.setThreads(1)
      let expected = try problem.run(backend)
      for threads in [1, 2, 3, 5] {
        try HostSettings.setThreads(Int32(threads))
        let result = try problem.run(backend)
        XCTAssertEqual(result.out.bits, expected.out.bits, "\(name), \(threads) threads")
        XCTAssertEqual(result.lse.bits, expected.lse.bits, "\(name), \(threads) threads")
      }
      for index in lengths.indices {
        let alone = problem.request(index)
        let result = try alone.run(alone.makeBackend(name))
        let rows = Int(problem.queryStarts[index])..<Int(problem.queryStarts[index + 1])
        XCTAssertEqual(result.out.bits, bits(expected.out, rows: rows), "\(name), request \(index)")
        XCTAssertEqual(
          result.lse.bits, bits(expected.lse, columns: rows), "\(name), request \(index)")
      }
    }
  }

  func testWorkspaceOfExactlyTheSizeAsked() throws {
    var random = SplitMix64(seed: 5)
    for name in backends {
      let problem = BatchProblem(
        .float32, numHeads: 2, dims: (64, 64, 128), queryLengths: [5, 60], keyLengths: [2200, 70],
        &random)
      let backend = try problem.makeBackend(name)
      let size = Int(try backend.workspaceSize())
      let memory = GuardedMemory(byteCount: size, flush: .end)
      let workspace = UnsafeMutableRawBufferPointer(start: memory.base, count: size)
      let result = try problem.run(backend, workspace: workspace)
      XCTAssertEqual(result.out.bits, try problem.run(backend).out.bits, name)
      for offset in [1, 8, 36] {
        let unaligned = GuardedMemory(byteCount: size + offset, flush: .end)
        let workspace = UnsafeMutableRawBufferPointer(start: unaligned.base, count: size)
        XCTAssertEqual(
          try problem.run(backend, workspace: workspace).out.bits, result.out.bits, name)
      }
      func part(_ count: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: workspace[0..<count])
      }
      var needed = 0
      XCTAssertThrowsError(try problem.run(backend, workspace: part(64)), name) { error in
        let said = "\(error)".split(separator: " ")
        XCTAssertTrue("\(error)".contains("workspace_size = 64"), "\(error)")
        needed = said.firstIndex(of: "needs").flatMap { Int(said[$0 + 1]) } ?? 0
      }
      XCTAssertTrue((65...size).contains(needed), "\(name): \(needed) of \(size)")
      XCTAssertEqual(try problem.run(backend, workspace: part(needed)).out.bits, result.out.bits, name)
      XCTAssertThrowsError(try problem.run(backend, workspace: part(needed - 1)), name)
    }
  }

  /// A run takes the threads of its moment, whatever a plan was made for.
  func testWorkspaceAtThePresentNumberOfThreads() throws {
    var random = SplitMix64(seed: 11)
    for name in backends {
      let problem = BatchProblem(
        .bfloat16, numHeads: 4, dims: (64, 64, 128), queryLengths: [130, 9],
        keyLengths: [300, 70], &random)
      try HostSettings.setThreads(16)
      let backend = try problem.makeBackend(name)
      let most = try backend.workspaceSize()
      try HostSettings.setThreads(1)
      let size = Int(try backend.workspaceSize())
      XCTAssertLessThan(Int64(size), most, name)
      let memory = GuardedMemory(byteCount: size, flush: .end)
      let workspace = UnsafeMutableRawBufferPointer(start: memory.base, count: size)
      XCTAssertEqual(
        try problem.run(backend, workspace: workspace).out.bits, try problem.run(backend).out.bits,
        name)
    }
  }

  func testCloneHasNoMetadataOfItsOwn() throws {
    var random = SplitMix64(seed: 6)
    let problem = BatchProblem(
      .bfloat16, numHeads: 1, dims: (64, 32, 64), queryLengths: [9], &random)
    let backend = try problem.makeBackend("FLASHINFER")
    let clone = try backend.clone()
    XCTAssertThrowsError(try problem.run(clone))
    try problem.prepare(clone)
    XCTAssertEqual(try problem.run(clone).out.bits, try problem.run(backend).out.bits)
  }

  func testRaggedContractOfTRTLLM() throws {
    var random = SplitMix64(seed: 7)
    let mixed = BatchProblem(
      .bfloat16, numHeads: 1, dims: (64, 32, 64), queryLengths: [3, 0, 2], &random)
    XCTAssertThrowsError(try mixed.makeBackend("TRTLLM_RAGGED")) { error in
      XCTAssertTrue("\(error)".contains("mixed active and empty query rows"), "\(error)")
    }
    let empty = BatchProblem(
      .bfloat16, numHeads: 1, dims: (64, 32, 64), queryLengths: [0, 0], &random)
    _ = try empty.run(empty.makeBackend("TRTLLM_RAGGED"))
    let hollow = BatchProblem(
      .bfloat16, numHeads: 1, dims: (64, 32, 64), queryLengths: [3, 2], keyLengths: [4, 0], &random)
    let backend = try hollow.makeBackend("TRTLLM_RAGGED")
    XCTAssertThrowsError(try hollow.run(backend)) { error in
      XCTAssertTrue("\(error)".contains("empty query or KV row"), "\(error)")
    }
  }

  /// One object, several threads, outputs of their own.
  func testOneObjectOnSeveralThreads() throws {
    var random = SplitMix64(seed: 8)
    let problem = BatchProblem(
      .bfloat16, numHeads: 2, dims: (64, 32, 64), queryLengths: [100, 30], &random)
    let backend = try problem.makeBackend("FLASHINFER")
    let expected = try problem.run(backend).out.bits
    let failures = Guarded(0)
    let threads = (0..<4).map { _ in
      Thread {
        for _ in 0..<10 {
          let bits = try? problem.run(backend).out.bits
          if bits != expected { failures.withLock { $0 += 1 } }
        }
      }
    }
    threads.forEach { $0.start() }
    while threads.contains(where: { !$0.isFinished }) { Thread.sleep(forTimeInterval: 0.005) }
    XCTAssertEqual(failures.withLock { $0 }, 0)
  }

  private func check(_ problem: BatchProblem, _ backend: BackendObject, _ message: String) throws {
    let result = try problem.run(backend)
    let reference = problem.reference
    let bound = [ElementFormat.bfloat16: 4e-3, .float16: 1.5e-3, .float32: 2e-5][problem.format]
    XCTAssertLessThanOrEqual(
      relativeL2(result.out.values, reference.out), bound ?? 0, message)
    XCTAssertLessThanOrEqual(
      maxDifference(result.lse.values, reference.lse), 2e-4, message)
    XCTAssertTrue(result.out.surroundingsAreIntact, message)
    XCTAssertTrue(result.lse.surroundingsAreIntact, message)
  }

  private func bits(_ tensor: PoisonedTensor, rows: Range<Int>) -> [UInt32] {
    let row = tensor.heads * tensor.dim
    return Array(tensor.bits[rows.lowerBound * row..<rows.upperBound * row])
  }

  private func bits(_ lse: PoisonedTensor, columns: Range<Int>) -> [UInt32] {
    let all = lse.bits
    return (0..<lse.rows).flatMap { row in columns.map { all[row * lse.dim + $0] } }
  }
}
