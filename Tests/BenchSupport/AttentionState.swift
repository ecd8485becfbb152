import CMLAPrefill
import Foundation
import MLATestSupport

/// Attention of the same tokens to some of the keys.
public struct AttentionState {
  /// `[tokens, heads, v_head_dim]`
  public let out: HostTensor
  /// `[heads, tokens]`
  public let lse: HostTensor

  public init(out: HostTensor, lse: HostTensor) { (self.out, self.lse) = (out, lse) }

  public init(_ format: ElementFormat, tokens: Int, heads: Int, dim: Int) {
    out = HostTensor(format, rows: tokens, heads: heads, dim: dim)
    lse = HostTensor(.float32, rows: heads, heads: 0, dim: tokens)
  }

  /// Tokens beyond this state's own attend to nothing.
  public func padded(toTokens tokens: Int) -> AttentionState {
    let heads = out.heads
    let result = AttentionState(out.format, tokens: tokens, heads: heads, dim: out.dim)
    memset(result.out.data, 0, result.out.count * out.format.byteCount)
    result.out.data.copyMemory(from: out.data, byteCount: out.count * out.format.byteCount)
    let (from, to) = (
      lse.data.assumingMemoryBound(to: Float.self), result.lse.data.assumingMemoryBound(to: Float.self)
    )
    for head in 0..<heads {
      for token in 0..<tokens {
        to[head * tokens + token] = token < out.rows ? from[head * out.rows + token] : -.infinity
      }
    }
    return result
  }

  /// Through mla_merge_attn_states.
  public static func merged(
    _ library: MLALibrary, prefix: AttentionState, suffix: AttentionState
  ) throws -> AttentionState {
    let result = AttentionState(
      suffix.out.format, tokens: suffix.out.rows, heads: suffix.out.heads, dim: suffix.out.dim)
    let tensors = [result.out, result.lse, prefix.out, prefix.lse, suffix.out, suffix.lse]
    try withViews(tensors) { views in
      var args = mla_merge_args()
      args.struct_size = structSize(args)
      (args.output, args.output_lse) = (views, views + 1)
      (args.prefix_output, args.prefix_lse) = (views + 2, views + 3)
      (args.suffix_output, args.suffix_lse) = (views + 4, views + 5)
      args.prefill_tokens_with_context = -1
      try library.check(library.mergeAttnStates(&args), "mla_merge_attn_states")
    }
    return result
  }
}
