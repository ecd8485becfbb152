import MLAKernelABI

/// Merges the attention of the same tokens to two disjoint sets of keys (vLLM:
/// merge_attn_states; arXiv:2501.01005, section 2.2).
public enum MergeAttnStates {
  /// - Parameter maxISA: MLA_ISA_*: the strongest kernels allowed.
  public static func run(_ a: MergeArguments, maxISA: Int32 = 0) {
    switch a.device {
    case .cpu: runOnCPU(a, maxISA)
    }
  }

  private static func runOnCPU(_ a: MergeArguments, _ maxISA: Int32) {
    if a.output.isEmpty && (a.outputLSE?.isEmpty ?? true) { return }
    let table = KernelTables.table(cappedAt: maxISA)
    let (prefix, suffix) = ((a.prefixOutput, a.prefixLSE), (a.suffixOutput, a.suffixLSE))
    ParallelLoop.runRows(a.output.shape[0], heads: a.output.shape[1]) { tokens, head in
      let withContext = tokens.clamped(to: 0..<a.tokensWithContext)
      merge(withContext, head, [prefix, suffix], a, table)
      merge(tokens.dropFirst(withContext.count), head, [suffix], a, table)
    }
  }

  private static func merge(
    _ tokens: Range<Int>, _ head: Int, _ sides: [(out: TensorView, lse: TensorView)],
    _ a: MergeArguments, _ table: KernelTable
  ) {
    if tokens.isEmpty { return }
    let partials = sides.map { side in
      mla_partial(
        out: UnsafeRawPointer(side.out.row(tokens.lowerBound, head: head)),
        out_stride: Int64(side.out.strides[0]),
        lse: UnsafePointer(side.lse.lse(tokens.lowerBound, head: head)), lse_stride: 1)
    }
    partials.withUnsafeBufferPointer { partials in
      table.combine(
        mla_combine_args(
          num_rows: Int64(tokens.count), v_head_dim: Int64(a.output.shape[2]),
          partials: partials.baseAddress, num_partials: Int64(partials.count),
          format: a.prefixOutput.type.rawValue, out_format: a.output.type.rawValue,
          out_multiplier: a.outputScale?.multiplier ?? 1,
          out: a.output.row(tokens.lowerBound, head: head),
          out_stride: Int64(a.output.strides[0]),
          lse: a.outputLSE?.lse(tokens.lowerBound, head: head), lse_stride: 1))
    }
  }
}
