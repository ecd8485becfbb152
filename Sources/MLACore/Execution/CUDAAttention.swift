import CMLAPrefill
import MLACUDAKernels

/// Attention on a CUDA device, by cuDNN or by the library's own kernels: a batch's requests
/// handed to a kernel on the caller's stream, in the kernel's parameters.
struct CUDAAttention: Sendable {
  private let device: CUDADevice
  private let bfloat16: CUDADevice.Kernel
  private let float16: CUDADevice.Kernel
  private let upload: CUDAUpload
  private let scale: Float
  private let scaleLog2: Float

  /// - Throws: where there are no kernels for the dimensions.
  init(_ device: CUDADevice, _ config: BackendConfig) throws(MLAError) {
    try CUDADevice.require(heads: config.numHeads, "config.num_heads")
    self.device = device
    bfloat16 = try Self.kernel(.bfloat16, device, config)
    float16 = try Self.kernel(.float16, device, config)
    upload = try CUDAUpload(device)
    scale = Float(config.scale)
    scaleLog2 = Float(config.scale * 1.4426950408889634)
  }

  private static func kernel(
    _ type: ElementType, _ device: CUDADevice, _ config: BackendConfig
  ) throws(MLAError) -> CUDADevice.Kernel {
    var count: Int32 = 0
    let first = mla_cuda_attention_kernels(&count)
    let kernel = UnsafeBufferPointer(start: first, count: Int(count)).first {
      $0.dtype == type.rawValue && Int($0.qk_head_dim) == config.qkHeadDim
        && Int($0.v_head_dim) == config.vHeadDim
    }
    guard let kernel, let name = kernel.name else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "config.v_head_dim = \(config.vHeadDim): there is no CUDA kernel for heads of "
          + "\(config.qkHeadDim) and \(config.vHeadDim)")
    }
    return try device.kernel(name, threads: kernel.threads, sharedBytes: kernel.shared_bytes)
  }

  /// Puts the attention of all requests on the stream.
  func run(_ spans: RequestSpans, _ arguments: RunArguments) throws(MLAError) {
    let kernel = try kernel(of: spans, arguments)
    try device.onStream(arguments.stream) { launcher throws(MLAError) in
      try check(arguments, launcher)
      try run(kernel, spans, arguments, launcher)
    }
  }

  /// Likewise, of tensors whose memory is known to be the device's.
  func run(_ spans: RequestSpans, _ arguments: RunArguments, _ launcher: CUDADevice.Launcher)
    throws(MLAError)
  {
    try run(kernel(of: spans, arguments), spans, arguments, launcher)
  }

  private func run(
    _ kernel: CUDADevice.Kernel, _ spans: RequestSpans, _ arguments: RunArguments,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) {
    var isServed = false
    switch try CUDAEngine.choice(spans, arguments, scale: scale, device, launcher) {
    case .cuDNN(let run):
      isServed = try run.start(spans, arguments, upload: upload, launcher)
      CallRecord.note(isServed ? .cuDNN : .cuda)
      if isServed, run.attention.mask.showsEveryQueryAKey { return }
    case .own(let reason):
      CallRecord.note(.cuda)
      Verbose.explain { "cuda,own kernels: \(reason)" }
    }
    // Of requests without keys cuDNN does not say what it writes: it is written over.
    try launch(kernel, spans, arguments, onlyKeyless: isServed, launcher)
  }

  private func kernel(of spans: RequestSpans, _ arguments: RunArguments) throws(MLAError)
    -> CUDADevice.Kernel
  {
    let kernel = try kernel(for: arguments.q.type)
    try requireRows(spans)
    return kernel
  }

  private func launch(
    _ kernel: CUDADevice.Kernel, _ spans: RequestSpans, _ arguments: RunArguments,
    onlyKeyless: Bool, _ launcher: CUDADevice.Launcher
  ) throws(MLAError) {
    var launch = CUDAAttentionLaunch(arguments, scaleLog2: scaleLog2, causal: spans.causal)
    // Thousands of requests are looked at in each run, and few are launched.
    for request in spans.indices
    where spans.queries.count(request) > 0 && (spans.keys.count(request) == 0 || !onlyKeyless) {
      if launch.isFull { try submit(&launch, heads: arguments.q.shape[1], kernel, launcher) }
      launch.append(spans[request])
    }
    try submit(&launch, heads: arguments.q.shape[1], kernel, launcher)
  }

  /// Bytes of workspace with which cuDNN takes no memory of the stream's, and serves captures.
  func workspaceSize(_ sizes: CuDNNAttention.Sizes) -> Int {
    CuDNNDevice.of(device) == nil ? 0 : CuDNNRun.Memory.bytes(sizes)
  }

  /// What no keys give, in every row that there is.
  func runWithoutKeys(_ arguments: RunArguments) throws(MLAError) {
    let rows = try RowOffsets(lengths: CollectionOfOne(arguments.q.shape[0]))
    let none = try RowOffsets(lengths: CollectionOfOne(0))
    try run(RequestSpans(queries: rows, keys: none, causal: .none), arguments)
  }

  private func submit(
    _ launch: inout CUDAAttentionLaunch, heads: Int, _ kernel: CUDADevice.Kernel,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) {
    guard launch.tiles > 0 else { return }
    try launcher.launch(kernel, grid: (launch.tiles, heads), &launch.parameter)
    launch.removeRequests()
  }

  /// Kernels count rows in int32, up to the end of a tile.
  private func requireRows(_ spans: RequestSpans) throws(MLAError) {
    let most = Int(Int32.max) - Int(MLA_CUDA_TILE_QUERIES)
    for (rows, name) in [(spans.queries.rowCount, "q"), (spans.keys.rowCount, "k")] where rows > most {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "\(name).shape[0]: \(rows) rows in use, must be at most \(most) on a CUDA device")
    }
  }

  private func check(_ arguments: RunArguments, _ launcher: CUDADevice.Launcher) throws(MLAError) {
    let (q, k, v, out) = (arguments.q, arguments.k, arguments.v, arguments.out)
    for (tensor, name) in [(q, "q"), (k, "k"), (v, "v"), (out, "out")] {
      try launcher.requireOwnMemory(tensor, name)
    }
    if let lse = arguments.lse { try launcher.requireOwnMemory(lse, "lse") }
  }

  private func kernel(for type: ElementType) throws(MLAError) -> CUDADevice.Kernel {
    switch type {
    case .bfloat16: return bfloat16
    case .float16: return float16
    default:
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "q.dtype = \(type.name): must be MLA_DTYPE_BFLOAT16 or MLA_DTYPE_FLOAT16 on a CUDA device")
    }
  }
}
