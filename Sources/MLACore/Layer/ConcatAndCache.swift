import MLAKernelABI

/// Puts tokens' latents and rotary keys side by side into a paged cache (vLLM:
/// concat_and_cache_mla).
public enum ConcatAndCache {
  public static func run(_ a: ConcatAndCacheArguments) {
    let convert = KernelTables.table(cappedAt: 0).pointee.convert
    let chunks = (a.slots.count + tokensPerTask - 1) / tokensPerTask
    let tickets = TicketCounter()
    ParallelLoop.run(workers: min(HostSettings.threads, chunks)) { _ in
      while let task = tickets.take(below: chunks) {
        let begin = task * tokensPerTask
        for token in begin..<min(begin + tokensPerTask, a.slots.count) where a.slots[token] >= 0 {
          let (block, offset) = Int(a.slots[token]).quotientAndRemainder(
            dividingBy: a.cache.shape[1])
          let slot = block * a.cache.strides[0] + offset * a.cache.strides[1]
          write(a.latents, token, a, slot, convert)
          if let rope = a.rope { write(rope, token, a, slot + a.latents.shape[1], convert) }
        }
      }
    }
  }

  /// Few enough for an even finish, enough to outweigh taking a task.
  private static let tokensPerTask = 64

  private static func write(
    _ source: TensorView, _ token: Int, _ a: ConcatAndCacheArguments, _ slot: Int,
    _ convert: (@convention(c) (UnsafePointer<mla_convert_args>?) -> Void)?
  ) {
    if source.shape[1] == 0 { return }
    var args = mla_convert_args(
      rows: source.row(token, head: 0), row_stride: 0, num_rows: 1,
      row_dim: Int64(source.shape[1]), format: source.type.rawValue,
      out_format: a.cache.type.rawValue,
      // The inverse of a subnormal scale is infinite, and 0 times that a NaN.
      multiplier: min(1 / a.cacheScale, .greatestFiniteMagnitude), out: a.cache.pointer(at: slot),
      out_stride: 0)
    convert?(&args)
  }
}
