import MLAKernelABI

/// Puts tokens' keys into an index cache (vLLM: indexer_k_quant_and_cache).
public enum IndexStore {
  public static func run(_ a: IndexStoreArguments) throws(MLAError) {
    CallRecord.note { $0.note(a.k, on: .cpu) }
    CallRecord.note(rowsOn: .cpu)
    let workers = HostSettings.threads
    let scratch = WorkerScratch(workers: workers, bytes: a.k.shape[1] * 4, at: 0)
    let memory = try ScratchArena.take(bytes: scratch.end, for: "rows of an index cache")
    let (start, table) = (memory.base, KernelTables.table(cappedAt: 0))
    func write(_ tokens: Range<Int>, _ worker: Int) {
      let row = scratch.of(worker, start).assumingMemoryBound(to: Float.self)
      for token in tokens where a.slots[token] >= 0 {
        let (block, offset) = Int(a.slots[token]).quotientAndRemainder(
          dividingBy: a.cache.blockSize)
        Self.write(a, token, block, offset, row, table)
      }
    }
    // In order the last token of a slot has it; two at a time would leave a mixture.
    if try SlotRuns(a.slots).meetAgain() { return write(a.slots.indices, 0) }
    ParallelLoop.runRows(a.slots.count, workers: workers) { write($0, $1) }
  }

  private static func write(
    _ a: IndexStoreArguments, _ token: Int, _ block: Int, _ offset: Int,
    _ row: UnsafeMutablePointer<Float>, _ table: KernelTable
  ) {
    let (keys, scales) = (a.cache.latents, a.cache.rope)
    let key = a.k.pointer(at: token * a.k.strides[0])
    let slot = keys.pointer(block: block, offset: offset)
    let count = keys.width
    if a.transform.isNone { return table.convert(key, a.k.type, to: slot, keys.type, count: count) }
    table.convert(key, a.k.type, to: row, .float32, count: count)
    let scale = a.transform.apply(row, count)
    table.convert(row, .float32, to: slot, keys.type, count: count)
    if scales.width > 0 {
      scales.pointer(block: block, offset: offset).storeBytes(of: scale, as: Float.self)
    }
  }
}
