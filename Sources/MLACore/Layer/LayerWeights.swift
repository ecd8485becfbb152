import Glibc
import MLAKernelABI

/// kv_b_proj in a projection kernel's own layout: for each head the weights of
/// its keys, then those of its values. Packed once, read by any thread.
final class LayerWeights: @unchecked Sendable {
  private let start: UnsafeMutableRawPointer
  private let keyBytes: Int
  private let headBytes: Int

  init(
    _ tensor: TensorView, _ config: LayerConfig, _ table: UnsafePointer<mla_kernel_table>
  ) throws(MLAError) {
    let dims = config.attention
    let kernel = table.pointee.projection(for: config.type)
    let rank = Int64(dims.kvLoraRank)
    keyBytes = Int(kernel.packed_weights_bytes(Int64(dims.qkNopeHeadDim), rank))
    headBytes = keyBytes + Int(kernel.packed_weights_bytes(Int64(dims.vHeadDim), rank))
    let (bytes, overflows) = headBytes.multipliedReportingOverflow(by: dims.numHeads)
    var memory: UnsafeMutableRawPointer?
    guard !overflows, posix_memalign(&memory, 4096, bytes) == 0, let memory else {
      throw .outOfMemory("packed kv_b_proj", bytes: overflows ? .max : bytes)
    }
    start = memory
    try pack(tensor, config, kernel, table.pointee.convert)
  }

  deinit { free(start) }

  func keys(head: Int) -> UnsafeMutableRawPointer { start + head * headBytes }
  func values(head: Int) -> UnsafeMutableRawPointer { start + (head * headBytes + keyBytes) }

  private func pack(
    _ tensor: TensorView, _ config: LayerConfig, _ kernel: mla_projection_kernel,
    _ convert: (@convention(c) (UnsafePointer<mla_convert_args>?) -> Void)?
  ) throws(MLAError) {
    let (nope, v) = (config.attention.qkNopeHeadDim, config.attention.vHeadDim)
    let rank = config.attention.kvLoraRank
    let rowBytes = rank * config.type.bytes
    let workers = min(HostSettings.threads, config.attention.numHeads)
    let scratchBytes = (nope + v) * rowBytes
    let scratch = try ScratchArena.take(bytes: workers * scratchBytes, for: "packing kv_b_proj")
    let base = scratch.base
    let tickets = TicketCounter()
    ParallelLoop.run(workers: workers) { worker in
      let rows = base + worker * scratchBytes
      func pack(_ first: Int, _ count: Int, into packed: UnsafeMutableRawPointer) {
        if count == 0 { return }
        var args = mla_pack_rows_args(
          rows: rows + first * rowBytes, row_stride: Int64(rank), num_rows: Int64(count),
          row_dim: Int64(rank), format: config.type.rawValue, packed: packed)
        kernel.pack_weights(&args)
      }
      while let head = tickets.take(below: config.attention.numHeads) {
        var args = mla_convert_args(
          rows: tensor.row(head * (nope + v), head: 0), row_stride: Int64(tensor.strides[0]),
          num_rows: Int64(nope + v), row_dim: Int64(rank), format: tensor.type.rawValue,
          out_format: config.type.rawValue, multiplier: 1, out: rows, out_stride: Int64(rank))
        convert?(&args)
        pack(0, nope, into: self.keys(head: head))
        pack(nope, v, into: self.values(head: head))
      }
    }
  }
}
