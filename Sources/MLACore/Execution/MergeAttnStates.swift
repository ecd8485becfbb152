import MLAKernelABI

/// Merges the attention of the same tokens to two disjoint sets of keys (vLLM:
/// merge_attn_states; arXiv:2501.01005, section 2.2).
public enum MergeAttnStates {
  /// Where the tensors are; on a device, on the caller's stream.
  public static func run(_ a: MergeArguments) throws(MLAError) {
    CallRecord.note {
      $0.note(a.prefix.out, on: a.device)
      ($0.qk_head_dim, $0.v_head_dim) = (0, $0.qk_head_dim)
    }
    if a.output.out.isEmpty && (a.output.lse?.isEmpty ?? true) { return }
    CallRecord.note(rowsOn: a.device)
    if a.device.isCUDA { return try CUDAMerge.run(a) }
    run(a, maxISA: 0)
  }

  /// On the CPU.
  ///
  /// - Parameter maxISA: MLA_ISA_*: the strongest kernels allowed.
  static func run(_ a: MergeArguments, maxISA: Int32) {
    let table = KernelTables.table(cappedAt: maxISA)
    let out = a.output.out
    ParallelLoop.runRows(out.shape[0], heads: out.shape[1]) { tokens, head in
      let withContext = tokens.clamped(to: 0..<a.tokensWithContext)
      let others = tokens.dropFirst(withContext.count)
      for (tokens, hasPrefix) in [(withContext, true), (others, false)] where !tokens.isEmpty {
        table.merge(mla_merge_rows_args(
          num_rows: Int64(tokens.count), v_head_dim: Int64(out.shape[2]),
          prefix: hasPrefix ? rows(a.prefix, tokens.lowerBound, head) : mla_merge_side(),
          suffix: rows(a.suffix, tokens.lowerBound, head),
          format: a.prefix.out.type.rawValue, out_format: out.type.rawValue,
          out_multiplier: a.outputScale?.multiplier ?? 1,
          out: out.row(tokens.lowerBound, head: head), out_stride: Int64(out.strides[0]),
          lse: a.output.lse?.lse(tokens.lowerBound, head: head)))
      }
    }
  }

  private static func rows(_ side: MergeArguments.State, _ token: Int, _ head: Int)
    -> mla_merge_side
  {
    mla_merge_side(
      out: UnsafeRawPointer(side.out.row(token, head: head)),
      out_stride: Int64(side.out.strides[0]),
      lse: UnsafePointer(side.lse.lse(token, head: head)))
  }
}
