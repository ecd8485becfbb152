import CMLAPrefill

/// Queries whose keys are to be selected, the keys, and where the selection goes.
public struct IndexSelectArguments: @unchecked Sendable {
  let batch: IndexBatch
  /// [tokens, heads, head_dim].
  let q: TensorView
  /// [tokens, heads] of fp32.
  let weights: TensorView
  let transform: IndexTransform
  /// nil where no token sees a key.
  let cache: PagedCache?
  let cacheType: ElementType
  let topk: Int
  /// [tokens, topk] of 32-bit integers.
  let indices: TensorView
  /// [tokens, topk] of fp32; nil: nobody wants them.
  let scores: TensorView?
  /// Whether the caller's memory is to be used, or the library's.
  let workspace: Workspace?
  /// MLA_ISA_*: the strongest kernels allowed.
  let maxISA: Int32

  /// The caller's, checked against each other.
  ///
  /// - Parameter readsWorkspace: whether a workspace is part of the call.
  public init(_ pointer: UnsafePointer<mla_index_select_args>?, readsWorkspace: Bool = true)
    throws(MLAError)
  {
    let raw = try readStruct(pointer, name: "args")
    let format = try IndexFormat(raw.format)
    try checkRange("topk", raw.topk, 1...Self.mostKeys)
    try checkRange("max_isa", raw.max_isa, 0...Int32(MLA_ISA_NEON_BF16))
    let tensors = try IndexTensors(raw)
    transform = try Self.transform(raw, tensors.q)
    workspace = readsWorkspace ? try Workspace(raw.workspace, size: raw.workspace_size) : nil
    try Device.cpu.check(stream: raw.stream)
    batch = try IndexBatch(raw, tensors.q)
    let slots = try format.slots(of: tensors.cache, as: tensors.q)
    cache =
      batch.seesKeys
      ? try PagedCache(
        slots, BlockTable(raw, blockCount: slots.blockCount, of: "index_cache"), batch,
        starts: nil, startsField: "") : nil
    try tensors.checkOverlaps(workspace)
    (q, weights, cacheType) = (tensors.q.view, tensors.weights.view, tensors.cache.type)
    (indices, scores) = (tensors.indices.view, tensors.scores?.view)
    (topk, maxISA) = (Int(raw.topk), raw.max_isa)
  }

  /// A sixteenth of what keys can be numbered by, and more than any model's.
  private static let mostKeys: Int32 = 1 << 20

  private static func transform(_ raw: mla_index_select_args, _ q: CallTensor) throws(MLAError)
    -> IndexTransform
  {
    let quantizes = try flag("quantize_q", raw.quantize_q)
    let transform = try IndexTransform(
      hadamard: raw.hadamard, scaleFormat: raw.scale_format, quantizes: quantizes,
      headDim: q.width)
    if q.type == .float8E4M3 {
      guard !quantizes else { throw .invalid("quantize_q", 1, "must be 0 for q of \(q.type.name)") }
      guard !transform.turns else {
        throw .invalid("hadamard", 1, "must be 0 for q of \(q.type.name)")
      }
    }
    return transform
  }
}

/// Row i of the table is request i's.
extension mla_index_select_args: BlockTableFields {
  var block_table_rows: UnsafePointer<Int32>! { nil }
  var num_table_rows: Int64 { 0 }
}

private struct IndexTensors {
  let q: CallTensor
  let weights: CallTensor
  let cache: CallTensor
  let indices: CallTensor
  let scores: CallTensor?

  init(_ raw: mla_index_select_args) throws(MLAError) {
    q = try CallTensor(raw.q, name: "q", on: .cpu, rank: 3)
    try q.requireRange(1...65536, ofDimension: 1)
    try q.requireRange(1...Int(maximumHeadDim), ofDimension: 2)
    let tokens: CallTensor.SizeRule = (q.shape[0], "the rows of q")
    weights = try CallTensor(raw.weights, name: "weights", on: .cpu, rank: 2)
    try weights.requireType(.float32, "whatever q's")
    try weights.requireShape(tokens, (q.shape[1], "the heads of q"))
    cache = try CallTensor(raw.index_cache, name: "index_cache", on: .cpu, rank: 2, or: 3)
    indices = try CallTensor(
      topkIndices: raw.topk_indices, rows: q.shape[0], topk: raw.topk, stride: raw.topk_stride)
    scores = try CallTensor(raw.scores, name: "scores", on: .cpu, rank: 2, mayBeNull: true)
    try scores?.requireType(.float32, "whatever q's")
    try scores?.requireShape(tokens, (Int(raw.topk), "topk"))
  }

  func checkOverlaps(_ workspace: Workspace?) throws(MLAError) {
    try indices.requireOutput(apartFrom: q, weights, cache)
    try scores?.requireOutput(apartFrom: q, weights, cache, indices)
    try workspace?.requireNoOverlap(with: q, weights, cache, indices, scores)
  }
}
