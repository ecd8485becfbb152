import CMLAPrefill

/// The tensors of one run, checked against each other and the backend's
/// configuration.
public struct RunArguments: Sendable {
  public let q: TensorView
  public let k: TensorView
  public let v: TensorView
  public let out: TensorView
  /// nil: out is not quantized.
  let outputScale: OutputScale?
  public let lse: TensorView?
  public let workspace: Workspace?

  init(
    q: TensorView, k: TensorView, v: TensorView, out: TensorView, workspace: Workspace?
  ) {
    self.q = q
    self.k = k
    self.v = v
    self.out = out
    outputScale = nil
    lse = nil
    self.workspace = workspace
  }

  /// The fields that both kinds of run have.
  struct Raw {
    let q, k, v, out, lse: UnsafePointer<mla_tensor>?
    let outputScale: UnsafePointer<Float>?
    let workspace: UnsafeMutableRawPointer?
    let workspaceSize: Int64
    let stream: UnsafeMutableRawPointer?
  }

  /// - Parameters:
  ///   - queries, keys: the offsets that say which rows of q and of k and v are used.
  ///   - isContextChunk: a run whose result is to be merged: lse is wanted, and out
  ///     is not quantized.
  init(
    _ raw: Raw, config: BackendConfig, queries: RowOffsets, queriesField: String, keys: RowOffsets,
    keysField: String, isContextChunk: Bool
  ) throws(MLAError) {
    q = try TensorView(raw.q, name: "q", rank: 3)
    // First of all: what is wrong with q is often wrong with all of them.
    try q.requireAttentionType()
    k = try TensorView(raw.k, name: "k", rank: 3)
    v = try TensorView(raw.v, name: "v", rank: 3)
    out = try TensorView(raw.out, name: "out", rank: 3)
    lse =
      raw.lse == nil && !isContextChunk ? nil : try TensorView(raw.lse, name: "lse", rank: 2)
    workspace = try Workspace(raw.workspace, size: raw.workspaceSize)
    try checkNoStream(raw.stream)
    outputScale = isContextChunk ? nil : try OutputScale(raw.outputScale, for: out)
    try checkTypes()
    try checkShapes(config, keysAreOfQueries: !isContextChunk)
    try checkRows(queries, queriesField, of: q)
    try checkRows(keys, keysField, of: k)
    try checkOverlaps()
  }

  private func checkTypes() throws(MLAError) {
    try k.requireType(q.type, "as q")
    try v.requireType(q.type, "as q")
    if outputScale == nil { try out.requireAttentionType() }
    if let lse { try lse.requireType(.float32, "whatever q's") }
  }

  /// - Parameter keysAreOfQueries: whether k and v are of the same tokens as q.
  private func checkShapes(_ config: BackendConfig, keysAreOfQueries: Bool) throws(MLAError) {
    let heads = (config.numHeads, "config.num_heads")
    let qkDim = (config.qkHeadDim, "config's qk_nope_head_dim + qk_rope_head_dim")
    let vDim = (config.vHeadDim, "config.v_head_dim")
    let queries = (q.shape[0], "the rows of q")
    try q.requireShape(queries, heads, qkDim)
    try k.requireShape(keysAreOfQueries ? queries : (k.shape[0], ""), heads, qkDim)
    try v.requireShape((k.shape[0], "the rows of k"), heads, vDim)
    try out.requireShape(queries, heads, vDim)
    try lse?.requireShape(heads, queries)
  }

  private func checkRows(_ rows: RowOffsets, _ field: String, of tensor: TensorView)
    throws(MLAError)
  {
    guard rows.rowCount <= tensor.shape[0] else {
      throw .invalid(
        "\(field)[\(rows.requestCount)]", rows.rowCount,
        "must not be beyond the \(tensor.shape[0]) rows of \(tensor.name)")
    }
  }

  private func checkOverlaps() throws(MLAError) {
    try checkOverlaps(of: out)
    if let lse {
      try checkOverlaps(of: lse)
      try lse.requireNoOverlap(with: out)
    }
    try workspace?.requireNoOverlap(with: [q, k, v, out, lse].compactMap { $0 })
  }

  private func checkOverlaps(of output: TensorView) throws(MLAError) {
    try output.requireDistinctElements()
    try output.requireNoOverlap(with: q)
    try output.requireNoOverlap(with: k)
    try output.requireNoOverlap(with: v)
  }
}
