import CMLAPrefill
import MLACUDAKernels

/// `ConcatAndCache` on a CUDA device.
enum CUDAConcatAndCache {
  static func run(
    _ a: ConcatAndCacheArguments, _ slots: UnsafePointer<Int64>?, count: Int
  ) throws(MLAError) {
    guard count > 0 else { return }
    let device = try CUDA.device(a.device.id, field: "kv_cache.device_id")
    let kernel = try device.kernel(
      "mla_concat_and_cache", a.latents.type, threads: Int32(MLA_CUDA_CACHE_THREADS))
    var parameter = mla_cuda_concat_and_cache(
      latents: mla_cuda_rows(matrix: a.latents), rope: mla_cuda_rows(matrix: a.rope),
      slots: UnsafeRawPointer(slots)?.assumingMemoryBound(to: CLongLong.self),
      slot_count: Int64(a.cache.blockCount * a.cache.blockSize),
      cached_latents: a.cache.latents.cuda, cached_rope: a.cache.rope.cuda,
      block_size: Int32(a.cache.blockSize), multiplier: 1 / a.cache.latents.multiplier,
      scales_offset: Int32(a.cache.latents.scalesOffset ?? -1), reserved: 0)
    try device.onStream(a.stream) { launcher throws(MLAError) in
      try check(a, slots, launcher)
      try launcher.launch(kernel, grid: (count, 1), &parameter)
    }
  }

  private static func check(
    _ a: ConcatAndCacheArguments, _ slots: UnsafePointer<Int64>?, _ launcher: CUDADevice.Launcher
  ) throws(MLAError) {
    try launcher.requireOwnMemory(a.latents, "kv_c_normed")
    if let rope = a.rope { try launcher.requireOwnMemory(rope, "k_pe") }
    try launcher.requireOwnMemory(a.cache)
    try launcher.requireOwnMemory(UInt(bitPattern: slots), "slot_mapping")
  }
}

extension CUDADevice.Launcher {
  func requireOwnMemory(_ slots: CacheSlots) throws(MLAError) {
    for (rows, name) in [(slots.latents, "kv_cache"), (slots.rope, "k_pe_cache")]
    where rows.width > 0 && slots.blockCount * slots.blockSize > 0 {
      try requireOwnMemory(UInt(bitPattern: rows.cuda.data), "\(name).data")
    }
  }
}

extension mla_cuda_rows {
  /// [tokens, width]; nil: there is none.
  init(matrix view: TensorView?) {
    guard let view, !view.isEmpty else {
      self.init()
      return
    }
    self.init(
      data: UnsafeMutableRawPointer(bitPattern: view.address), token_stride: Int64(view.strides[0]),
      head_stride: 0)
  }
}
