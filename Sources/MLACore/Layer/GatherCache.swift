/// Brings requests' tokens from a paged cache into rows, dequantized (vLLM:
/// gather_and_maybe_dequant_cache, cp_gather_and_upconvert_fp8_kv_cache).
public enum GatherCache {
  /// Where the cache is; on a device, on the caller's stream.
  public static func run(_ a: GatherCacheArguments) throws(MLAError) {
    CallRecord.note { $0.note(a.latents, on: a.device) }
    CallRecord.note(rowsOn: a.device)
    switch a.tokens {
    case .none: break
    case .onCPU(let cache, let offsets): run(a, cache, offsets)
    case .onDevice(let tokens): try CUDAGatherCache.run(a, tokens)
    }
  }

  private static func run(_ a: GatherCacheArguments, _ cache: PagedCache, _ offsets: RowOffsets) {
    let table = KernelTables.table(cappedAt: 0)
    func target(_ view: TensorView, _ row: Int) -> RowTarget? {
      view.isEmpty ? nil : RowTarget(out: view.row(row, head: 0), stride: view.strides[0])
    }
    ParallelLoop.runRows(offsets.rowCount) { rows, _ in
      var row = rows.lowerBound
      while row < rows.upperBound {
        let request = offsets.request(ofRow: row)
        let begin = offsets.begin(request)
        let end = min(begin + offsets.count(request), rows.upperBound)
        cache.read(
          row - begin..<end - begin, of: request, latents: target(a.latents, row),
          rope: target(a.rope, row), a.latents.type, table)
        row = end
      }
    }
  }
}
