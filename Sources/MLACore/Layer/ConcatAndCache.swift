import MLAKernelABI

/// Puts tokens' latents and rotary keys side by side into a paged cache (vLLM:
/// concat_and_cache_mla).
public enum ConcatAndCache {
  public static func run(_ a: ConcatAndCacheArguments) throws(MLAError) {
    switch a.device {
    case .cpu: try runOnCPU(a)
    }
  }

  private static func runOnCPU(_ a: ConcatAndCacheArguments) throws(MLAError) {
    let writer = SlotWriter(a)
    func write(_ tokens: Range<Int>) {
      for token in tokens where a.slots[token] >= 0 {
        let (block, offset) = Int(a.slots[token]).quotientAndRemainder(dividingBy: a.cache.shape[1])
        let slot = block * a.cache.strides[0] + offset * a.cache.strides[1]
        writer.write(token, to: a.cache.pointer(at: slot))
      }
    }
    // In order the last token of a slot has it; two at a time would leave a mixture.
    if try SlotRuns(a.slots).meetAgain() { return write(a.slots.indices) }
    ParallelLoop.runRows(a.slots.count) { tokens, _ in write(tokens) }
  }
}

/// Writes a token's latent and rotary part as the cache's format has them.
private struct SlotWriter {
  private let arguments: ConcatAndCacheArguments
  private let table = KernelTables.table(cappedAt: 0)

  init(_ arguments: ConcatAndCacheArguments) { self.arguments = arguments }

  func write(_ token: Int, to slot: UnsafeMutableRawPointer) {
    let (latents, rope) = (arguments.latents, arguments.rope)
    switch arguments.cacheFormat {
    case .plain(let type, let scale):
      let multiplier = 1 / scale
      convert(latents, token, to: slot, type, times: multiplier)
      if let rope {
        convert(
          rope, token, to: slot + latents.shape[1] * type.bytes, type, times: multiplier)
      }
    case .fp8DsMLA:
      quantize(latents, token, to: slot)
      let tail = slot + DsMLASlot.ropeOffset
      if let rope, rope.shape[1] > 0 {
        convert(rope, token, to: tail, .bfloat16, times: 1)
      } else {
        tail.initializeMemory(
          as: UInt8.self, repeating: 0, count: DsMLASlot.bytes - DsMLASlot.ropeOffset)
      }
    }
  }

  private func convert(
    _ source: TensorView, _ token: Int, to out: UnsafeMutableRawPointer, _ type: ElementType,
    times multiplier: Float
  ) {
    if source.shape[1] == 0 { return }
    table.convert(
      mla_convert_args(
        rows: source.row(token, head: 0), row_stride: 0, num_rows: 1,
        row_dim: Int64(source.shape[1]), format: source.type.rawValue, out_format: type.rawValue,
        multiplier: multiplier, out: out, out_stride: 0))
  }

  private func quantize(
    _ source: TensorView, _ token: Int, to slot: UnsafeMutableRawPointer
  ) {
    table.quantize(
      mla_quantize_args(
        rows: source.row(token, head: 0), row_stride: 0, num_rows: 1,
        row_dim: Int64(DsMLASlot.rank), format: source.type.rawValue, out: slot, out_stride: 0,
        scales: slot + DsMLASlot.scalesOffset, scale_stride: 0,
        scale_group: Int64(DsMLASlot.group)))
  }
}
