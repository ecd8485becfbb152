import MLAKernelABI

extension TileCall {
  /// A panel's queries become right operands; those that do not exist are zero.
  @inline(__always)
  func packQueries(_ panel: Int) {
    let first = panel * panelQueries * Int(args.q_stride) * Operands.Element.bytes
    RowSource<Operands>(
      start: args.q.unsafelyUnwrapped + first, stride: Int(args.q_stride),
      dim: Int(args.dims.qk_head_dim), rows: queries(of: panel)
    ).packRight(
      // The sign bits of both elements of a pair.
      signs: args.scale < 0 ? 0x8000_8000 : 0, into: scratch.panel(panel).queries,
      turning: scratch.spare.assumingMemoryBound(to: FloatVector.self))
  }
}
