import MLACUDAKernels

/// Latents times kv_b_proj on a CUDA device: rows that cuDNN has plans for by cuDNN, the others by
/// the library's own kernel.
struct CUDAProjection: Sendable {
  private let device: CUDADevice
  private let type: ElementType
  private let kernel: CUDADevice.Kernel

  /// - Parameter type: of all three tensors.
  init(_ device: CUDADevice, _ type: ElementType) throws(MLAError) {
    (self.device, self.type) = (device, type)
    kernel = try device.kernel(
      "mla_project", type, threads: Int32(MLA_CUDA_PROJECTION_THREADS),
      sharedBytes: Int32(MLA_CUDA_PROJECTION_SHARED))
  }

  /// - Parameter product: of dense tensors at multiples of 16 bytes.
  func run(_ product: mla_cuda_projection, _ launcher: CUDADevice.Launcher) throws(MLAError) {
    var rest = product
    while rest.row_count > 0,
      case .cuDNN(let cuDNN, let plan, let projection) = try CUDAProjectionEngine.choice(
        rest, type, device, launcher),
      try start(plan, of: cuDNN, rest, launcher)
    {
      rest.removeFirst(projection.rows, type)
    }
    try launch(&rest, launcher)
  }

  /// - Returns: whether it is on the launcher's stream.
  private func start(
    _ plan: CuDNNPlan, of cuDNN: CuDNNDevice, _ product: mla_cuda_projection,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) -> Bool {
    try cuDNN.start(plan, launcher) { () throws(CuDNN.Failure) in
      let pack = try CuDNNPack.make(cuDNN.cuDNN) { (tensor: CuDNNProjection.Tensor) in
        switch tensor {
        case .input: product.in.data
        case .weights: product.weights.data
        case .output: product.out.data
        }
      }
      try cuDNN.run(plan, pack, launcher)
    }
  }

  private func launch(_ product: inout mla_cuda_projection, _ launcher: CUDADevice.Launcher)
    throws(MLAError)
  {
    guard product.row_count > 0 else { return }
    let tile = Int(MLA_CUDA_PROJECTION_TILE)
    let (rows, columns) = (Int(product.row_count), Int(product.column_count))
    try launcher.launch(
      kernel, grid: ((rows - 1) / tile + 1, (columns - 1) / tile + 1), &product)
  }
}

extension mla_cuda_projection {
  fileprivate mutating func removeFirst(_ rows: Int, _ type: ElementType) {
    self.in.data += rows * Int(self.in.token_stride) * type.bytes
    out.data += rows * Int(out.token_stride) * type.bytes
    row_count -= Int32(rows)
  }
}
