import Foundation
import MLACore
import MLAKernelABI
import MLATestSupport

/// A chunk of context, few queries on many keys, on one thread and by its processor
/// time: the whole call, and what of it is left to do where keys and values lie packed.
public struct ContextChunk {
  public let instruction: String
  /// Medians over samples of speed / peak of the same moment.
  public let wholeCall: Double
  public let prepared: Double
  /// Relative L2 distance of what both computed.
  public let difference: Double

  public init(
    _ library: MLALibrary, backend name: String?, _ kernelCase: KernelCase, queries: Int, keys: Int,
    dimensions: MLADimensions, rounds: Int
  ) throws {
    let threads = library.numThreads
    try library.setNumThreads(1)
    defer { try? library.setNumThreads(threads) }
    let probe = PeakProbe(kernelCase)
    let chunk = ChunkTensors(kernelCase, dimensions, queries: queries, keys: keys)
    let backend = try Backend(
      library, name: name, dimensions: dimensions, format: kernelCase.format, maxISA: kernelCase.isa)
    let starts = (queries: [0, Int32(queries)], keys: [0, Int32(keys)])
    try backend.prepare(queryStarts: starts.queries)
    let packed = try PreparedKeys(kernelCase, dimensions, chunk)
    let flops = 2 * Double(queries * keys * (dimensions.qk + dimensions.v) * dimensions.heads)
    var (whole, prepared): ([Double], [Double]) = ([], [])
    var expected: [Double] = []
    for round in 0...rounds {
      let before = probe.threadRate()
      let wholeTime = try threadSeconds {
        try backend.runContextChunk(
          queryStarts: starts.queries, keyStarts: starts.keys, q: chunk.q, k: chunk.k, v: chunk.v,
          out: chunk.state.out, lse: chunk.state.lse)
      }
      let between = probe.threadRate()
      if round == 0 { expected = chunk.state.out.values }
      let preparedTime = threadSeconds { packed.run(chunk) }
      let after = probe.threadRate()
      // The first round warms up.
      if round == 0 { continue }
      whole.append(flops / wholeTime / ((before + between) / 2))
      prepared.append(flops / preparedTime / ((between + after) / 2))
    }
    instruction = probe.instruction
    wholeCall = median(whole)
    self.prepared = median(prepared)
    difference = relativeL2(chunk.state.out.values, expected)
  }
}

private struct ChunkTensors {
  let q: HostTensor
  let k: HostTensor
  let v: HostTensor
  let state: AttentionState

  init(_ kernelCase: KernelCase, _ d: MLADimensions, queries: Int, keys: Int) {
    q = HostTensor(kernelCase.format, rows: queries, heads: d.heads, dim: d.qk)
    k = HostTensor(kernelCase.format, rows: keys, heads: d.heads, dim: d.qk)
    v = HostTensor(kernelCase.format, rows: keys, heads: d.heads, dim: d.v)
    state = AttentionState(kernelCase.format, tokens: queries, heads: d.heads, dim: d.v)
    var random = SplitMix64(seed: UInt64(queries))
    for tensor in [q, k, v] { tensor.fillNormal(&random) }
  }
}

/// All heads' keys and values, packed, and what attends to them as the schedule of the
/// CPU backend cuts it.
private final class PreparedKeys {
  private let kernel: mla_attention_kernel
  private let combine: @convention(c) (UnsafePointer<mla_combine_args>) -> Void
  private let dims: mla_kernel_dims
  private let scale: Float
  private let block: Int
  private let blockBytes: Int
  private let headBytes: Int
  private let keysPerRange: Int
  private let packed: UnsafeMutableRawPointer
  private let partials: UnsafeMutablePointer<Float>
  private let scratch: UnsafeMutableRawPointer

  init(_ kernelCase: KernelCase, _ d: MLADimensions, _ chunk: ChunkTensors) throws {
    let table = KernelTables.table(cappedAt: kernelCase.isa).kernels
    kernel = kernelCase.attention(of: table)
    combine = table.combine
    dims = mla_kernel_dims(qk_head_dim: Int64(d.qk), v_head_dim: Int64(d.v))
    scale = Float(d.scale)
    block = Int(kernel.key_block)
    blockBytes = Int(kernel.packed_block_bytes(dims))
    let (queries, keys) = (chunk.q.rows, chunk.k.rows)
    headBytes = (keys + block - 1) / block * blockBytes
    let schedule = try TileSchedule(
      [RequestSpan(queryBegin: 0, queryCount: queries, keyBegin: 0, keyCount: keys)],
      numHeads: d.heads,
      shape: TileShape(
        queryTile: Int(kernel.query_tile), keyBlock: block, packedBlockBytes: blockBytes,
        vHeadDim: d.v),
      split: .byCost(numHeads: d.heads), threads: 1)
    let request = (Array(schedule.units) + schedule.waves)[0].first.request
    keysPerRange = request.blocksPerRange * block
    packed = .allocate(byteCount: d.heads * headBytes, alignment: 4096)
    partials = .allocate(capacity: request.ranges * queries * (d.v + MLA_PARTIAL_STATISTICS))
    scratch = .allocate(byteCount: Int(kernel.scratch_bytes(dims)), alignment: 4096)
    for head in 0..<d.heads { pack(chunk, head: head) }
  }

  deinit {
    packed.deallocate()
    partials.deallocate()
    scratch.deallocate()
  }

  private func pack(_ chunk: ChunkTensors, head: Int) {
    for first in stride(from: 0, to: chunk.k.rows, by: block) {
      var args = mla_pack_args()
      args.dims = dims
      args.k = UnsafeRawPointer(chunk.k.row(first, head: head))
      args.v = UnsafeRawPointer(chunk.v.row(first, head: head))
      args.k_stride = Int64(chunk.k.heads * chunk.k.dim)
      args.v_stride = Int64(chunk.v.heads * chunk.v.dim)
      args.num_keys = Int64(min(block, chunk.k.rows - first))
      args.format = chunk.k.format.rawValue
      args.packed = packed + (head * headBytes + first / block * blockBytes)
      kernel.pack(&args)
    }
  }

  func run(_ chunk: ChunkTensors) {
    kernel.enter?()
    for head in 0..<chunk.q.heads {
      let ranges = stride(from: 0, to: chunk.k.rows, by: keysPerRange)
      for begin in ranges {
        attend(chunk, head: head, keys: begin..<min(begin + keysPerRange, chunk.k.rows))
      }
      var args = mla_combine_args()
      args.num_rows = Int64(chunk.q.rows)
      args.v_head_dim = dims.v_head_dim
      args.row_stride = Int64(rowFloats)
      args.sum = partials
      args.added = UnsafePointer(partials + chunk.q.rows * rowFloats)
      args.added_stride = Int64(chunk.q.rows * rowFloats)
      args.num_added = Int64(Array(ranges).count - 1)
      args.out_format = chunk.q.format.rawValue
      args.out_multiplier = 1
      args.out = chunk.state.out.row(0, head: head)
      args.out_stride = Int64(chunk.q.heads) * dims.v_head_dim
      combine(&args)
    }
    kernel.leave?()
  }

  private func attend(_ chunk: ChunkTensors, head: Int, keys: Range<Int>) {
    let queries = chunk.q.rows
    let rows = partials + keys.lowerBound / keysPerRange * queries * rowFloats
    let tile = Int(kernel.query_tile)
    for first in stride(from: 0, to: queries, by: tile) {
      var args = mla_attend_args()
      args.dims = dims
      args.q = UnsafeRawPointer(chunk.q.row(first, head: head))
      args.q_stride = Int64(chunk.q.heads * chunk.q.dim)
      args.num_queries = Int64(min(tile, queries - first))
      args.packed = UnsafeRawPointer(packed + head * headBytes)
      args.key_begin = Int64(keys.lowerBound)
      args.key_end = Int64(keys.upperBound)
      args.causal_offset = Int64.max / 2
      args.scale = scale
      args.format = chunk.q.format.rawValue
      args.out_format = Int32(MLA_FORMAT_PARTIAL)
      args.out = UnsafeMutableRawPointer(rows + first * rowFloats)
      args.out_stride = Int64(rowFloats)
      args.scratch = scratch
      kernel.attend(&args)
    }
  }

  private var rowFloats: Int { Int(dims.v_head_dim) + MLA_PARTIAL_STATISTICS }
}
