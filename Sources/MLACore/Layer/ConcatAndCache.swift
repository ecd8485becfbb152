import MLAKernelABI

/// Puts tokens' latents and rotary keys side by side into a paged cache (vLLM:
/// concat_and_cache_mla).
public enum ConcatAndCache {
  /// Where the cache is; on a device, on the caller's stream.
  public static func run(_ a: ConcatAndCacheArguments) throws(MLAError) {
    CallRecord.note { $0.note(a.latents, on: a.device) }
    CallRecord.note(rowsOn: a.device)
    switch a.slots {
    case .onCPU(let slots): try run(a, slots)
    case .onDevice(let slots, let count): try CUDAConcatAndCache.run(a, slots, count: count)
    }
  }

  private static func run(_ a: ConcatAndCacheArguments, _ slots: FixedArray<Int64>)
    throws(MLAError)
  {
    let writer = SlotWriter(a)
    func write(_ tokens: Range<Int>) {
      for token in tokens where slots[token] >= 0 {
        let (block, offset) = Int(slots[token]).quotientAndRemainder(
          dividingBy: a.cache.blockSize)
        writer.write(token, block, offset)
      }
    }
    // In order the last token of a slot has it; two at a time would leave a mixture.
    if try SlotRuns(slots).meetAgain() { return write(slots.indices) }
    ParallelLoop.runRows(slots.count) { tokens, _ in write(tokens) }
  }
}

/// Writes a token's latent and rotary part as the cache's format has them.
private struct SlotWriter {
  private let arguments: ConcatAndCacheArguments
  private let table = KernelTables.table(cappedAt: 0)

  init(_ arguments: ConcatAndCacheArguments) { self.arguments = arguments }

  func write(_ token: Int, _ block: Int, _ offset: Int) {
    let (latents, rope) = (arguments.cache.latents, arguments.cache.rope)
    let slot = latents.pointer(block: block, offset: offset)
    if let scalesOffset = latents.scalesOffset {
      quantize(arguments.latents, token, to: slot, scales: slot + scalesOffset)
    } else {
      convert(arguments.latents, token, to: slot, latents)
    }
    guard rope.width > 0 else { return }
    let tail = rope.pointer(block: block, offset: offset)
    if let source = arguments.rope, source.shape[1] > 0 {
      convert(source, token, to: tail, rope)
    } else {
      tail.initializeMemory(as: UInt8.self, repeating: 0, count: rope.width * rope.type.bytes)
    }
  }

  private func convert(
    _ source: TensorView, _ token: Int, to out: UnsafeMutableRawPointer, _ rows: CacheSlots.Rows
  ) {
    if source.shape[1] == 0 { return }
    table.convert(
      mla_convert_args(
        rows: source.row(token, head: 0), row_stride: 0, num_rows: 1,
        row_dim: Int64(source.shape[1]), format: source.type.rawValue,
        out_format: rows.type.rawValue, multiplier: 1 / rows.multiplier, out: out, out_stride: 0))
  }

  private func quantize(
    _ source: TensorView, _ token: Int, to slot: UnsafeMutableRawPointer,
    scales: UnsafeMutableRawPointer
  ) {
    table.quantize(
      mla_quantize_args(
        rows: source.row(token, head: 0), row_stride: 0, num_rows: 1,
        row_dim: Int64(DsMLASlot.rank), format: source.type.rawValue, out: slot, out_stride: 0,
        scales: scales, scale_stride: 0, scale_group: Int64(DsMLASlot.group)))
  }
}
