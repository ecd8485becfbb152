import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each indexer's kernel of each table of this host against float64.
final class IndexKernelTests: XCTestCase {
  func testRandomShapesAgainstFloat64() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<80 {
        var random = SplitMix64(seed: seed)
        let problem = IndexProblem(kernelCase.index, kernelCase.format, &random)
        let what = "\(kernelCase), seed \(seed): \(problem)"
        let (first, second) = (problem.run(garbage: 0xFF), problem.run(garbage: 0x7F))
        for key in first.indices {
          let (score, bound) = problem.reference(key)
          XCTAssertLessThanOrEqual(abs(Double(first[key]) - score), bound, "\(what), key \(key)")
        }
        XCTAssertEqual(first.map(\.bitPattern), second.map(\.bitPattern), what)
      }
    }
  }

  /// An infinite number times the zeros that fill a group of heads is none.
  func testHeadsThatDoNotExistHaveNoPart() {
    for kernelCase in KernelCase.onThisHost {
      for heads in 1...9 {
        var random = SplitMix64(seed: UInt64(heads))
        let problem = IndexProblem(kernelCase.index, kernelCase.format, &random, keys: 3, heads: heads)
        for head in 0..<heads { problem.queries[head, 0, 0] = 1 }
        problem.keys[1, 0, 0] = .infinity
        let scores = problem.run(garbage: 0xFF)
        // What is infinite of either sign is no number by itself.
        let isMixed = Set(problem.weights.map(\.sign)).count > 1
        XCTAssertTrue(isMixed ? scores[1].isNaN : scores[1].isInfinite, "\(kernelCase), \(heads) heads")
        XCTAssertTrue(scores[0].isFinite && scores[2].isFinite, "\(kernelCase), \(heads) heads")
      }
    }
  }

  /// Whatever keys it stands beside.
  func testAKeysBitsAreItsOwn() {
    for kernelCase in KernelCase.onThisHost {
      var random = SplitMix64(seed: 3)
      let block = Int(kernelCase.index.key_block)
      let problem = IndexProblem(kernelCase.index, kernelCase.format, &random, keys: block)
      let all = problem.run(garbage: 0xFF).map(\.bitPattern)
      for (first, count) in [(0, 1), (1, block - 1), (block / 3, block / 2), (block - 1, 1)] {
        let part = problem.run(garbage: 0xFF, first: first, count: count).map(\.bitPattern)
        XCTAssertEqual(part, Array(all[first..<first + count]), "\(kernelCase), \(count) from \(first)")
      }
    }
  }
}

/// A token's heads and some keys.
private struct IndexProblem: CustomStringConvertible {
  let kernel: mla_index_kernel
  let keys: PoisonedTensor
  let queries: PoisonedTensor
  let weights: [Float]
  /// Empty: there are none.
  let scales: [Float]

  var description: String { "\(keys.rows) keys, \(queries.rows) heads of \(queries.dim)" }

  init(
    _ kernel: mla_index_kernel, _ format: ElementFormat, _ random: inout SplitMix64,
    keys count: Int? = nil, heads: Int? = nil
  ) {
    self.kernel = kernel
    let dim = random.pick([1, 2, 31, 64, 128, random.int(1...200)])
    keys = PoisonedTensor(
      format, rows: count ?? random.int(1...Int(kernel.key_block)), dim: dim,
      rowGap: random.int(0...7))
    queries = PoisonedTensor(
      format, rows: heads ?? random.pick([1, 4, 8, 64, random.int(1...40)]), dim: dim,
      rowGap: random.int(0...7))
    keys.fillNormal(&random)
    queries.fillNormal(&random)
    weights = (0..<queries.rows).map { _ in Float(random.normal()) }
    scales = random.chance(0.5) ? [] : (0..<keys.rows).map { _ in Float(abs(random.normal())) }
  }

  func run(garbage: UInt8, first: Int = 0, count: Int? = nil) -> [Float] {
    let count = count ?? keys.rows
    let block = Int(kernel.key_block) * 4
    let packedKeys = pack(
      kernel.pack_keys, keys, first, count, bytes: kernel.packed_keys_bytes, garbage)
    let packedQueries = pack(
      kernel.pack_queries, queries, 0, queries.rows, bytes: kernel.packed_queries_bytes, garbage)
    let scaleMemory = GuardedMemory(byteCount: (block + 63) / 64 * 64)
    let scoreMemory = GuardedMemory(byteCount: (block + 63) / 64 * 64)
    for memory in [scaleMemory, scoreMemory] { memory.fill(byte: garbage) }
    let scales = self.scales.isEmpty ? [] : Array(self.scales[first..<first + count])
    scaleMemory.base.copyMemory(from: scales, byteCount: scales.count * 4)
    return weights.withUnsafeBufferPointer { weights in
      var args = mla_index_scores_args(
        keys: packedKeys.base, num_keys: Int64(count), queries: packedQueries.base,
        num_heads: Int64(queries.rows), head_dim: Int64(keys.dim), weights: weights.baseAddress,
        scales: scales.isEmpty ? nil : scaleMemory.base.assumingMemoryBound(to: Float.self),
        scores: scoreMemory.base.assumingMemoryBound(to: Float.self))
      withExtendedLifetime((packedKeys, packedQueries, scaleMemory)) { kernel.score(&args) }
      return (0..<count).map { scoreMemory.base.load(fromByteOffset: $0 * 4, as: Float.self) }
    }
  }

  private func pack(
    _ pack: (UnsafePointer<mla_pack_rows_args>) -> Void, _ tensor: PoisonedTensor, _ first: Int,
    _ rows: Int, bytes: (Int64, Int64) -> Int64, _ garbage: UInt8
  ) -> GuardedMemory {
    let memory = GuardedMemory(byteCount: Int(bytes(Int64(rows), Int64(tensor.dim))))
    memory.fill(byte: garbage)
    var args = mla_pack_rows_args(
      rows: tensor.pointer(row: first), row_stride: Int64(tensor.rowStride), num_rows: Int64(rows),
      row_dim: Int64(tensor.dim), format: tensor.format.rawValue, packed: memory.base)
    pack(&args)
    return memory
  }

  /// The header's bound.
  func reference(_ key: Int) -> (score: Double, bound: Double) {
    var (sum, sizes) = (0.0, 0.0)
    for head in 0..<queries.rows {
      var (product, size) = (0.0, 0.0)
      for d in 0..<keys.dim {
        let term = queries[head, 0, d] * keys[key, 0, d]
        (product, size) = (product + term, size + abs(term))
      }
      let weight = Double(weights[head])
      (sum, sizes) = (sum + weight * max(0, product), sizes + abs(weight) * size)
    }
    let scale = scales.isEmpty ? 1 : Double(scales[key])
    return (scale * sum, Double(keys.dim + queries.rows + 2) * 0x1p-24 * scale * sizes)
  }
}
