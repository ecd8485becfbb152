import Glibc
import MLAKernelABI

/// kv_b_proj in a projection kernel's own layout: for each head the weights of
/// its keys, then those of its values; where requests may be worked on in latent
/// space, also those that take queries to the latents, which are the keys'
/// transposed. Packed once, read by any thread.
final class LayerWeights: @unchecked Sendable {
  private let start: UnsafeMutableRawPointer
  private let valuesOffset: Int
  private let queriesOffset: Int
  private let headBytes: Int

  /// - Parameter forQueries: whether requests may be worked on in latent space.
  init(
    _ weights: KVBProj, _ config: LayerConfig, _ table: KernelTable,
    forQueries: Bool
  ) throws(MLAError) {
    let dims = config.attention
    let kernel = table.projection(for: config.type)
    let rank = Int64(dims.kvLoraRank)
    let nope = Int64(dims.qkNopeHeadDim)
    valuesOffset = Int(kernel.packed_weights_bytes(nope, rank))
    queriesOffset = valuesOffset + Int(kernel.packed_weights_bytes(Int64(dims.vHeadDim), rank))
    headBytes =
      queriesOffset
      + (forQueries ? Int(kernel.packed_weights_bytes(rank, nope)) : 0)
    let (bytes, overflows) = headBytes.multipliedReportingOverflow(by: dims.numHeads)
    guard !overflows, let memory = ScratchArena.allocate(bytes, alignment: 4096)
    else {
      throw .outOfMemory("packed kv_b_proj", bytes: overflows ? .max : bytes)
    }
    start = memory
    try pack(weights, config, kernel, table, forQueries: forQueries)
  }

  deinit { free(start) }

  func keys(head: Int) -> UnsafeMutableRawPointer { start + head * headBytes }
  func values(head: Int) -> UnsafeMutableRawPointer { start + (head * headBytes + valuesOffset) }
  func queries(head: Int) -> UnsafeMutableRawPointer { start + (head * headBytes + queriesOffset) }

  private func pack(
    _ weights: KVBProj, _ config: LayerConfig, _ kernel: mla_projection_kernel,
    _ table: KernelTable, forQueries: Bool
  ) throws(MLAError) {
    let (nope, v) = (config.attention.qkNopeHeadDim, config.attention.vHeadDim)
    let rank = config.attention.kvLoraRank
    let rowBytes = rank * config.type.bytes
    let workers = min(HostSettings.threads, config.attention.numHeads)
    let turnedOffset = (nope + v) * rowBytes
    let scratchBytes = turnedOffset + nope * rowBytes
    let scratch = try ScratchArena.take(bytes: workers * scratchBytes, for: "packing kv_b_proj")
    let base = scratch.base
    ParallelLoop.runTasks(config.attention.numHeads, workers: workers) { head, worker in
      let rows = base + worker * scratchBytes
      func pack(
        _ rows: UnsafeMutableRawPointer, _ count: Int, _ dim: Int,
        into packed: UnsafeMutableRawPointer
      ) {
        if count == 0 || dim == 0 { return }
        var args = mla_pack_rows_args(
          rows: rows, row_stride: Int64(dim), num_rows: Int64(count), row_dim: Int64(dim),
          format: config.type.rawValue, packed: packed)
        kernel.pack_weights(&args)
      }
      weights.copy(head * (nope + v)..<(head + 1) * (nope + v), to: rows, config.type, table)
      pack(rows, nope, rank, into: self.keys(head: head))
      pack(rows + nope * rowBytes, v, rank, into: self.values(head: head))
      guard forQueries else { return }
      let turned = rows + turnedOffset
      if config.type.bytes == 2 {
        turn(UInt16.self, rows, nope, rank, into: turned)
      } else {
        turn(UInt32.self, rows, nope, rank, into: turned)
      }
      pack(turned, rank, nope, into: self.queries(head: head))
    }
  }
}

/// Transposes rows x columns.
private func turn<Bits: FixedWidthInteger>(
  _: Bits.Type, _ source: UnsafeMutableRawPointer, _ rows: Int, _ columns: Int,
  into target: UnsafeMutableRawPointer
) {
  let from = source.assumingMemoryBound(to: Bits.self)
  let to = target.assumingMemoryBound(to: Bits.self)
  for row in 0..<rows {
    for column in 0..<columns { to[column * rows + row] = from[row * columns + column] }
  }
}
