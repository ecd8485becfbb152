import CMLAPrefill
import MLACUDAKernels

/// `MergeAttnStates` on a CUDA device.
enum CUDAMerge {
  static func run(_ a: MergeArguments) throws(MLAError) {
    let device = try CUDA.device(a.device.id, field: "output.device_id")
    let kernel = try device.kernel(
      "mla_merge", a.prefix.out.type, threads: Int32(MLA_CUDA_MERGE_THREADS))
    try CUDADevice.require(heads: a.output.out.shape[1], "output.shape[1]")
    try device.onStream(a.stream) { launcher throws(MLAError) in
      try check(a, launcher)
      try launch(a, kernel, launcher)
    }
  }

  /// - Parameter kernel: for the type of the sides.
  static func launch(
    _ a: MergeArguments, _ kernel: CUDADevice.Kernel, _ launcher: CUDADevice.Launcher
  ) throws(MLAError) {
    let (tokens, heads) = (a.output.out.shape[0], a.output.out.shape[1])
    var parameter = mla_cuda_merge(
      prefix: mla_cuda_rows(a.prefix.out), suffix: mla_cuda_rows(a.suffix.out),
      out: mla_cuda_rows(a.output.out), prefix_lse: mla_cuda_lse(a.prefix.lse),
      suffix_lse: mla_cuda_lse(a.suffix.lse), out_lse: mla_cuda_lse(a.output.lse),
      token_count: Int32(tokens), dimension: Int32(a.output.out.shape[2]),
      tokens_with_context: Int32(a.tokensWithContext),
      out_multiplier: a.outputScale?.multiplier ?? 1, out_type: a.output.out.type.rawValue,
      reserved: 0)
    try launcher.launch(
      kernel, grid: ((tokens - 1) / Int(MLA_CUDA_MERGE_TOKENS) + 1, heads), &parameter)
  }

  private static func check(_ a: MergeArguments, _ launcher: CUDADevice.Launcher) throws(MLAError) {
    let tensors: [(TensorView?, String)] = [
      (a.output.out, "output"), (a.output.lse, "output_lse"), (a.prefix.out, "prefix_output"),
      (a.prefix.lse, "prefix_lse"), (a.suffix.out, "suffix_output"), (a.suffix.lse, "suffix_lse"),
    ]
    for case let (tensor?, name) in tensors { try launcher.requireOwnMemory(tensor, name) }
  }
}
