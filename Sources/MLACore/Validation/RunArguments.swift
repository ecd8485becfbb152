import CMLAPrefill

/// What one run reads and writes, on the device of its backend's configuration.
struct RunArguments: @unchecked Sendable {
  let q: TensorView
  let k: TensorView
  let v: TensorView
  let out: TensorView
  /// nil: out is not quantized.
  var outputScale: OutputScale?
  var lse: TensorView?
  var workspace: Workspace?
  /// The device's; nil: the default one.
  var stream: UnsafeMutableRawPointer?
}

extension RunArguments {
  /// The caller's, checked against each other and the backend's configuration.
  ///
  /// - Parameters:
  ///   - queries, keys: the offsets that say which rows of q and of k and v are used.
  ///   - isContextChunk: a run whose result is to be merged: lse is wanted, and out
  ///     is not quantized; k and v are not of the same tokens as q.
  init(
    _ raw: mla_new_tokens_args, config: BackendConfig, queries: RowOffsets, queriesField: String,
    keys: RowOffsets, keysField: String, isContextChunk: Bool
  ) throws(MLAError) {
    let tensors = try AttentionTensors(
      raw, on: config.device, needsLSE: isContextChunk)
    workspace = try Workspace(raw.workspace, size: raw.workspace_size)
    try config.device.check(stream: raw.stream)
    stream = raw.stream
    outputScale = isContextChunk ? nil : try OutputScale(raw.output_scale, for: tensors.out)
    try tensors.checkTypes(isQuantized: outputScale != nil)
    try tensors.checkShapes(config, keysAreOfQueries: !isContextChunk)
    try tensors.q.requireRows(of: queries, queriesField)
    try tensors.k.requireRows(of: keys, keysField)
    try tensors.checkOverlaps(workspace)
    (q, k, v, out) = (tensors.q.view, tensors.k.view, tensors.v.view, tensors.out.view)
    lse = tensors.lse?.view
  }
}

extension AttentionTensors {
  fileprivate init(_ raw: mla_new_tokens_args, on device: Device, needsLSE: Bool)
    throws(MLAError)
  {
    q = try CallTensor(raw.q, name: "q", on: device, rank: 3)
    // First of all: what is wrong with q is often wrong with all of them.
    try q.requireAttentionType()
    k = try CallTensor(raw.k, name: "k", on: device, rank: 3)
    v = try CallTensor(raw.v, name: "v", on: device, rank: 3)
    out = try CallTensor(raw.out, name: "out", on: device, rank: 3)
    lse = try CallTensor(raw.lse, name: "lse", on: device, rank: 2, mayBeNull: !needsLSE)
  }

  fileprivate func checkShapes(_ config: BackendConfig, keysAreOfQueries: Bool) throws(MLAError) {
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
}
