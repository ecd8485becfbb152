import Foundation
import MLACore
import MLAKernelABI
import MLATestSupport

/// How much longer a kernel takes where scores are as awkward as they can be, on
/// one thread and by its processor time; packing is the same for all and left out.
public struct ScoreCosts {
  public enum Scores: String, CaseIterable, Sendable {
    case random
    case allEqual = "all equal"
    /// Logits up to 1e4 and more.
    case far
    /// Each group of 16 keys is far above the last.
    case growing
    /// One key is so far above the others that these hardly weigh anything.
    case outlier
    /// The same, at the edge of what fp32 can hold: subnormal probabilities.
    case subnormal
  }

  public let kernelCase: KernelCase
  /// Median over rounds of the time of random scores in the same round.
  public let ratios: [(scores: Scores, ratio: Double)]

  public init(_ kernelCase: KernelCase, tokens: Int, dimensions: MLADimensions, rounds: Int) {
    let problems = Scores.allCases.map { Problem(kernelCase, dimensions, tokens, $0) }
    var taken: [[Double]] = []
    for round in 0...rounds {
      let times = problems.map { problem in threadSeconds { problem.run() } }
      // The first round warms up.
      if round > 0 { taken.append(times.map { $0 / times[0] }) }
    }
    self.kernelCase = kernelCase
    ratios = Scores.allCases.indices.map { index in
      (Scores.allCases[index], median(taken.map { $0[index] }))
    }
  }
}

/// Causal attention of one head.
private final class Problem {
  private let kernel: mla_attention_kernel
  private let dims: mla_kernel_dims
  private let format: ElementFormat
  private let scale: Float
  private let q: HostTensor
  private let out: HostTensor
  private let packed: UnsafeMutableRawPointer
  private let scratch: UnsafeMutableRawPointer

  init(_ kernelCase: KernelCase, _ d: MLADimensions, _ tokens: Int, _ scores: ScoreCosts.Scores) {
    format = kernelCase.format
    kernel = kernelCase.attention(of: KernelTables.table(cappedAt: kernelCase.isa).kernels)
    dims = mla_kernel_dims(qk_head_dim: Int64(d.qk), v_head_dim: Int64(d.v))
    scale = Float(d.scale) * (scores == .far ? 1e4 : 1)
    q = HostTensor(format, rows: tokens, heads: 0, dim: d.qk)
    let k = HostTensor(format, rows: tokens, heads: 0, dim: d.qk)
    let v = HostTensor(format, rows: tokens, heads: 0, dim: d.v)
    out = HostTensor(format, rows: tokens, heads: 0, dim: d.v)
    var random = SplitMix64(seed: 5)
    for tensor in [q, k, v] { tensor.fillNormal(&random) }
    let blockBytes = Int(kernel.packed_block_bytes(dims))
    let block = Int(kernel.key_block)
    packed = .allocate(byteCount: (tokens + block - 1) / block * blockBytes, alignment: 4096)
    scratch = .allocate(byteCount: Int(kernel.scratch_bytes(dims)), alignment: 4096)
    for row in 0..<tokens {
      set(q, row, 1)
      if let place = place(scores, row, d.scale) { set(k, row, place) }
      if scores == .allEqual { for index in 0..<d.qk { set(k, row, 0, at: index) } }
    }
    for first in stride(from: 0, to: tokens, by: block) {
      var args = mla_pack_args(
        dims: dims, k: k.data + first * d.qk * format.byteCount,
        v: v.data + first * d.v * format.byteCount, k_stride: Int64(d.qk), v_stride: Int64(d.v),
        num_keys: Int64(min(block, tokens - first)), format: format.rawValue,
        packed: packed + first / block * blockBytes, next_k: nil, next_v: nil)
      kernel.pack(&args)
    }
  }

  deinit {
    packed.deallocate()
    scratch.deallocate()
  }

  func run() {
    kernel.enter?()
    let tile = Int(kernel.query_tile)
    for first in stride(from: 0, to: q.rows, by: tile) {
      let count = min(tile, q.rows - first)
      var args = mla_attend_args()
      args.dims = dims
      args.q = UnsafeRawPointer(q.data + first * q.dim * format.byteCount)
      args.q_stride = Int64(q.dim)
      args.num_queries = Int64(count)
      args.packed = UnsafeRawPointer(packed)
      args.key_end = Int64(first + count)
      args.causal_offset = Int64(first)
      args.scale = scale
      args.format = format.rawValue
      args.out_format = format.rawValue
      args.out = out.data + first * out.dim * format.byteCount
      args.out_stride = Int64(out.dim)
      args.scratch = scratch
      kernel.attend(&args)
    }
    kernel.leave?()
  }

  /// The first element of a key, which every query multiplies by 1; nil: as it is.
  private func place(_ scores: ScoreCosts.Scores, _ row: Int, _ scale: Double) -> Double? {
    switch scores {
    case .growing: Double(row / 16) * 500
    case .outlier: row == 5 ? 20_000 : nil
    // e^-90 is about 2^-130.
    case .subnormal: row == 0 ? 90 / scale : nil
    default: nil
    }
  }

  private func set(_ tensor: HostTensor, _ row: Int, _ value: Double, at index: Int = 0) {
    format.storeBits(
      format.bits(value), to: tensor.data + (row * tensor.dim + index) * format.byteCount)
  }
}
