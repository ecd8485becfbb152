import CMLAPrefill
import MLACUDAKernels
import MLAKernelABI

/// On a CUDA device: kv_b_proj in memory of its own there, and the kernels that make keys and
/// values of latents, on the caller's stream.
struct CUDALayerPlace: LayerPlace {
  let config: LayerConfig
  let device: CUDADevice
  let weights: CUDAMemory
  let kernels: Kernels
  let projection: CUDAProjection

  struct Kernels: Sendable {
    let gather: CUDADevice.Kernel
    let concat: CUDADevice.Kernel
    let merge: CUDADevice.Kernel
    /// From the layer's dtype, and from fp32.
    let convert: CUDADevice.Kernel
    let convertFloat32: CUDADevice.Kernel
  }

  init(_ config: LayerConfig, _ weights: KVBProj) throws(MLAError) {
    let device = try CUDA.device(config.attention.device.id, field: "config.device_id")
    self.config = config
    self.device = device
    kernels = try Kernels(device, config.type)
    projection = try CUDAProjection(device, config.type)
    let rows = weights.weights.shape[0]
    let bytes = rows * config.attention.kvLoraRank * config.type.bytes
    let dense = try ScratchArena.take(bytes: max(1, bytes), for: "a dense kv_b_proj")
    if bytes > 0 {
      weights.copy(0..<rows, to: dense.base, config.type, KernelTables.table(cappedAt: 0))
    }
    self.weights = try CUDAMemory(
      device, copying: UnsafeRawBufferPointer(start: dense.base, count: bytes))
  }

  var fastestBytes: Int { 256 << 20 }

  /// The latents and rotary parts of all keys at once.
  func scratch(rows: Int, threads: Int) -> (workers: Int, bytes: Int) {
    (1, CUDALayerMemory.latentBytes(rows, config) + CUDALayerMemory.ropeBytes(rows, config))
  }

  func withMemory(
    _ memory: RegisteredMemory, _ arguments: LayerArguments,
    _ body: (UnsafeMutableRawPointer, CUDALayerWork) throws(MLAError) -> Void
  ) throws(MLAError) {
    try withMemory(of: memory.bytes, arguments) { start, launcher throws(MLAError) in
      let launches = CUDALayerLaunches(place: self, arguments: arguments, launcher: launcher)
      try body(start, CUDALayerWork(launches: launches, memory: memory, start: start))
    }
  }

  /// Runs `body` with the start, aligned, of that many bytes, and what puts work on the
  /// caller's stream. `bytes` has room for aligning.
  func withMemory(
    of bytes: Int, _ arguments: LayerArguments,
    _ body: (UnsafeMutableRawPointer, CUDADevice.Launcher) throws(MLAError) -> Void
  ) throws(MLAError) {
    try device.onStream(arguments.stream) { launcher throws(MLAError) in
      func run(_ start: UnsafeMutableRawPointer) throws(MLAError) {
        try body(start.alignedUp(toMultipleOf: memoryAlignment), launcher)
      }
      try arguments.checkMemory(launcher)
      if let workspace = arguments.workspace {
        try workspace.require(bytes, query: "mla_layer_workspace_size")
        return try run(workspace.start)
      }
      guard try !launcher.isCapturing() else {
        throw .invalid("workspace", "NULL", "must be given while the stream is captured")
      }
      try launcher.withMemory(of: bytes, run)
    }
  }
}

extension CUDALayerPlace.Kernels {
  fileprivate init(_ device: CUDADevice, _ type: ElementType) throws(MLAError) {
    gather = try device.kernel(
      "mla_gather_layer_tokens", type, threads: Int32(MLA_CUDA_CACHE_THREADS))
    concat = try device.kernel(
      "mla_concat_keys", threads: Int32(MLA_CUDA_KEYS_THREADS), sharedBytes: 0)
    merge = try device.kernel("mla_merge", .float32, threads: Int32(MLA_CUDA_MERGE_THREADS))
    convert = try device.kernel("mla_convert", type, threads: Int32(MLA_CUDA_CONVERT_THREADS))
    convertFloat32 = try device.kernel(
      "mla_convert", .float32, threads: Int32(MLA_CUDA_CONVERT_THREADS))
  }
}
