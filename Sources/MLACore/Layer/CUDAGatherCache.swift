import CMLAPrefill
import MLACUDAKernels

/// `GatherCache` on a CUDA device.
enum CUDAGatherCache {
  static func run(
    _ a: GatherCacheArguments, _ tokens: GatherCacheArguments.DeviceTokens
  ) throws(MLAError) {
    let rows = a.latents.shape[0]
    let device = try CUDA.device(a.device.id, field: "kv_cache.device_id")
    let kernel = try device.kernel(
      "mla_gather_cache", a.latents.type, threads: Int32(MLA_CUDA_CACHE_THREADS))
    var parameter = mla_cuda_gather_cache(
      latents: mla_cuda_rows(matrix: a.latents), rope: mla_cuda_rows(matrix: a.rope),
      cache: mla_cuda_paged_cache(tokens.slots, tokens.table), cu_seq_lens: tokens.cuSeqLens,
      seq_starts: tokens.seqStarts, request_count: tokens.requestCount, token_count: Int32(rows))
    try device.onStream(a.stream) { launcher throws(MLAError) in
      try check(a, tokens, launcher)
      try launcher.launch(
        kernel, grid: ((rows - 1) / Int(MLA_CUDA_GATHER_TOKENS) + 1, 1), &parameter)
    }
  }

  private static func check(
    _ a: GatherCacheArguments, _ tokens: GatherCacheArguments.DeviceTokens,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) {
    try launcher.requireOwnMemory(a.latents, "dst")
    try launcher.requireOwnMemory(a.rope, "k_pe")
    try launcher.requireOwnMemory(tokens.slots)
    for case let (pointer?, name) in [
      (tokens.cuSeqLens, "cu_seq_lens"), (tokens.seqStarts, "seq_starts"),
      (tokens.table.table, "block_table"),
    ] {
      try launcher.requireOwnMemory(UInt(bitPattern: pointer), name)
    }
  }
}

extension mla_cuda_paged_cache {
  init(_ slots: CacheSlots, _ table: BlockTable) {
    self.init(
      latents: slots.latents.cuda, rope: slots.rope.cuda, block_table: table.table,
      block_table_stride: Int64(table.stride), table_width: Int32(table.width),
      block_count: Int32(slots.blockCount), block_size: Int32(slots.blockSize),
      multiplier: slots.latents.multiplier, scales_offset: Int32(slots.latents.scalesOffset ?? -1),
      reserved: 0)
  }
}
