import MLAKernelABI

extension TileCall {
  /// A panel's queries become right operands; those that do not exist are zero.
  @inline(__always)
  func packQueries(_ panel: Int) {
    let first = panel * panelQueries
    let pitch = Int(args.q_stride) * 2
    packRightRows(
      args.q.unsafelyUnwrapped + first * pitch, pitch: pitch,
      rowBytes: Int(args.dims.qk_head_dim) * 2, rows: queries(of: panel), steps: layout.depthSteps,
      // The sign bits of both elements of a pair.
      signs: args.scale < 0 ? 0x8000_8000 : 0, into: scratch.panel(panel).queries,
      turning: scratch.spare.assumingMemoryBound(to: FloatVector.self))
  }
}
