import CMLAPrefill
import MLACUDAKernels

/// `MergeAttnStates` on a CUDA device.
enum CUDAMerge {
  static func run(_ a: MergeArguments) throws(MLAError) {
    let device = try CUDA.device(a.device.id, field: "output.device_id")
    let kernel = try device.kernel(
      "mla_merge", a.prefix.out.type, threads: Int32(MLA_CUDA_MERGE_THREADS))
    let (tokens, heads) = (a.output.out.shape[0], a.output.out.shape[1])
    // A launch has heads in its second dimension.
    let mostHeads = 65535
    try device.onStream(a.stream) { launcher throws(MLAError) in
      try check(a, launcher)
      for first in stride(from: 0, to: heads, by: mostHeads) {
        var parameter = parameter(a, from: first)
        try withUnsafeMutablePointer(to: &parameter) { parameter throws(MLAError) in
          try launcher.launch(
            kernel,
            grid: ((tokens - 1) / Int(MLA_CUDA_MERGE_TOKENS) + 1, min(mostHeads, heads - first)),
            UnsafeMutableRawPointer(parameter))
        }
      }
    }
  }

  private static func parameter(_ a: MergeArguments, from head: Int) -> mla_cuda_merge {
    func rows(_ view: TensorView) -> mla_cuda_rows {
      mla_cuda_rows(view.narrowed(1, to: head..<view.shape[1]))
    }
    func lse(_ view: TensorView?) -> mla_cuda_lse {
      mla_cuda_lse(view.map { $0.narrowed(0, to: head..<$0.shape[0]) })
    }
    return mla_cuda_merge(
      prefix: rows(a.prefix.out), suffix: rows(a.suffix.out), out: rows(a.output.out),
      prefix_lse: lse(a.prefix.lse), suffix_lse: lse(a.suffix.lse), out_lse: lse(a.output.lse),
      token_count: Int32(a.output.out.shape[0]), dimension: Int32(a.output.out.shape[2]),
      tokens_with_context: Int32(a.tokensWithContext),
      out_multiplier: a.outputScale?.multiplier ?? 1, out_type: a.output.out.type.cudaOutType,
      reserved: 0)
  }

  private static func check(_ a: MergeArguments, _ launcher: CUDADevice.Launcher) throws(MLAError) {
    let tensors: [(TensorView?, String)] = [
      (a.output.out, "output"), (a.output.lse, "output_lse"), (a.prefix.out, "prefix_output"),
      (a.prefix.lse, "prefix_lse"), (a.suffix.out, "suffix_output"), (a.suffix.lse, "suffix_lse"),
    ]
    for case let (tensor?, name) in tensors where !tensor.isEmpty {
      try launcher.requireOwnMemory(tensor.address, "\(name).data")
    }
  }
}
