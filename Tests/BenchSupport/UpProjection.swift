import BenchInstructions
import MLACore
import MLAKernelABI
import MLATestSupport

/// How much of its instruction's rate a table's up-projection reaches, packing of
/// latents, keys and values included, on one thread and by its processor time.
public struct UpProjection {
  public let kernelCase: KernelCase
  public let instruction: String
  public let tflops: Double
  /// Median over samples of speed / peak of the same moment.
  public let fractionOfPeak: Double

  /// - Parameter tokens: of one request; the last block may be short.
  public init(_ kernelCase: KernelCase, tokens: Int, dimensions: MLADimensions, rounds: Int) {
    let heads = (0..<dimensions.heads).map { _ in HeadWeights(kernelCase, dimensions) }
    let work = UpProjectionWork(kernelCase, dimensions, tokens: tokens)
    let probe = PeakProbe(kernelCase)
    let macs = tokens * (dimensions.nope + dimensions.v) * dimensions.kvLoraRank * heads.count
    var (speeds, fractions): ([Double], [Double]) = ([], [])
    for round in 0...rounds {
      let before = probe.threadRate()
      let speed = 2 * Double(macs) / threadSeconds { work.run(heads) }
      let after = probe.threadRate()
      // The first round warms up.
      if round == 0 { continue }
      speeds.append(speed)
      fractions.append(speed / ((before + after) / 2))
    }
    self.kernelCase = kernelCase
    instruction = probe.instruction
    tflops = median(speeds) * 1e-12
    fractionOfPeak = median(fractions)
  }
}

/// A head's part of kv_b_proj, packed.
private final class HeadWeights {
  let keys: UnsafeMutableRawPointer
  let values: UnsafeMutableRawPointer

  init(_ kernelCase: KernelCase, _ d: MLADimensions) {
    keys = Self.pack(kernelCase, rows: d.nope, d.kvLoraRank)
    values = Self.pack(kernelCase, rows: d.v, d.kvLoraRank)
  }

  deinit {
    keys.deallocate()
    values.deallocate()
  }

  private static func pack(_ kernelCase: KernelCase, rows: Int, _ rank: Int)
    -> UnsafeMutableRawPointer
  {
    let kernel = kernelCase.projection(of: kernelCase.table)
    let source = HostTensor(kernelCase.format, rows: rows, heads: 0, dim: rank)
    var random = SplitMix64(seed: UInt64(rows))
    source.fillNormal(&random)
    let packed = aligned(Int(kernel.packed_weights_bytes(Int64(rows), Int64(rank))))
    var args = mla_pack_rows_args(
      rows: source.data, row_stride: Int64(rank), num_rows: Int64(rows), row_dim: Int64(rank),
      format: kernelCase.format.rawValue, packed: packed)
    kernel.pack_weights(&args)
    return packed
  }
}

/// Latents and room for what becomes of them.
private final class UpProjectionWork {
  private let attention: mla_attention_kernel
  private let projection: mla_projection_kernel
  private let format: ElementFormat
  private let dimensions: MLADimensions
  private let dims: mla_kernel_dims
  private let latents: HostTensor
  private let ropes: HostTensor
  private let tokens: UnsafeMutableRawPointer
  private let packed: UnsafeMutableRawPointer

  init(_ kernelCase: KernelCase, _ d: MLADimensions, tokens count: Int) {
    format = kernelCase.format
    dimensions = d
    attention = kernelCase.attention(of: kernelCase.table)
    projection = kernelCase.projection(of: kernelCase.table)
    dims = mla_kernel_dims(qk_head_dim: Int64(d.qk), v_head_dim: Int64(d.v))
    latents = HostTensor(format, rows: count, heads: 0, dim: d.kvLoraRank)
    ropes = HostTensor(format, rows: count, heads: 0, dim: d.rope)
    var random = SplitMix64(seed: 7)
    for tensor in [latents, ropes] { tensor.fillNormal(&random) }
    tokens = aligned(
      Int(projection.packed_tokens_bytes(attention.key_block, Int64(d.kvLoraRank))))
    packed = aligned(Int(attention.packed_block_bytes(dims)))
  }

  deinit {
    tokens.deallocate()
    packed.deallocate()
  }

  /// As many heads to a block as a layer takes at once.
  func run(_ heads: [HeadWeights]) {
    attention.enter?()
    for first in stride(from: 0, to: heads.count, by: 4) {
      for block in stride(from: 0, to: latents.rows, by: Int(attention.key_block)) {
        let count = min(Int(attention.key_block), latents.rows - block)
        packTokens(block, count)
        for head in heads[first..<min(first + 4, heads.count)] { project(head, block, count) }
      }
    }
    attention.leave?()
  }

  private func packTokens(_ first: Int, _ count: Int) {
    var args = mla_pack_rows_args(
      rows: latents.data + first * dimensions.kvLoraRank * format.byteCount,
      row_stride: Int64(dimensions.kvLoraRank), num_rows: Int64(count),
      row_dim: Int64(dimensions.kvLoraRank), format: format.rawValue, packed: tokens)
    projection.pack_tokens(&args)
  }

  private func project(_ head: HeadWeights, _ first: Int, _ count: Int) {
    var args = mla_project_block_args(
      dims: dims, tokens: tokens, num_keys: Int64(count),
      row_dim: Int64(dimensions.kvLoraRank), key_weights: head.keys,
      nope_dim: Int64(dimensions.nope), value_weights: head.values,
      rope: ropes.data + first * dimensions.rope * format.byteCount,
      rope_stride: Int64(dimensions.rope), format: format.rawValue, packed: packed)
    projection.project_block(&args)
  }
}

extension KernelCase {
  fileprivate var table: mla_kernel_table { KernelTables.table(cappedAt: isa).kernels }
}

private func aligned(_ bytes: Int) -> UnsafeMutableRawPointer {
  .allocate(byteCount: max(bytes, 64), alignment: 4096)
}

/// Processor time of the calling thread.
func threadSeconds(_ body: () -> Void) -> Double {
  let begin = bench_now(Int32(BENCH_CLOCK_THREAD))
  body()
  return bench_now(Int32(BENCH_CLOCK_THREAD)) - begin
}
