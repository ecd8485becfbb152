import CMLAPrefill

/// What a stateless call reads and writes, on the CPU.
public struct AttentionArguments: Sendable {
  /// [rows, heads, dim] or [batch, heads, rows, dim].
  let q: TensorView
  let k: TensorView
  let v: TensorView
  let out: TensorView
  /// nil: out is not quantized.
  let outputScale: OutputScale?
  let lse: TensorView?
  let requests: FixedArray<RequestSpan>
  let scale: Double
  /// MLA_ISA_*: the strongest kernels allowed.
  let maxISA: Int32
  /// Whether the caller's memory is to be used, or the library's.
  let workspace: Workspace?

  /// The caller's, checked against each other.
  ///
  /// - Parameter readsWorkspace: whether a workspace is part of the call.
  public init(_ pointer: UnsafePointer<mla_attention_args>?, readsWorkspace: Bool = true)
    throws(MLAError)
  {
    let raw = try readStruct(pointer, name: "args")
    guard let causal = CausalMask(rawValue: raw.causal) else {
      throw .invalid("causal", raw.causal, "must be one of MLA_CAUSAL_*")
    }
    try checkScale("scale", raw.scale)
    try checkRange("max_isa", raw.max_isa, 0...Int32(MLA_ISA_NEON_BF16))
    let tensors = try AttentionTensors(raw)
    workspace = readsWorkspace ? try Workspace(raw.workspace, size: raw.workspace_size) : nil
    try Device.cpu.check(stream: raw.stream)
    outputScale = try OutputScale(raw.output_scale, for: tensors.out)
    try tensors.checkTypes(isQuantized: outputScale != nil)
    try tensors.checkShapes()
    requests = try AttentionRequests(raw, tensors.q, tensors.k).spans(causal)
    try tensors.checkOverlaps(workspace)
    (q, k, v, out) = (tensors.q.view, tensors.k.view, tensors.v.view, tensors.out.view)
    lse = tensors.lse?.view
    (scale, maxISA) = (raw.scale, raw.max_isa)
  }
}

extension CallTensor {
  /// Which dimension of a tensor of three or four has its tokens.
  var tokens: Int { shape.count == 4 ? 2 : 0 }
}

extension AttentionTensors {
  fileprivate init(_ raw: mla_attention_args) throws(MLAError) {
    q = try CallTensor(raw.q, name: "q", on: .cpu, rank: 3, or: 4)
    // First of all: what is wrong with q is often wrong with all of them.
    try q.requireAttentionType()
    let rank = q.shape.count
    k = try CallTensor(raw.k, name: "k", on: .cpu, rank: rank, rule: ", as q's")
    v = try CallTensor(raw.v, name: "v", on: .cpu, rank: rank, rule: ", as q's")
    out = try CallTensor(raw.out, name: "out", on: .cpu, rank: rank, rule: ", as q's")
    lse = try CallTensor(raw.lse, name: "lse", on: .cpu, rank: rank - 1, mayBeNull: true)
  }

  fileprivate func checkShapes() throws(MLAError) {
    let (heads, tokens, dim) = (1, q.tokens, q.shape.count - 1)
    try q.requireRange(1...65536, ofDimension: heads)
    try q.requireRange(1...Int(maximumHeadDim), ofDimension: dim)
    try v.requireRange(1...Int(maximumHeadDim), ofDimension: dim)
    guard k.shape[heads] > 0, q.shape[heads].isMultiple(of: k.shape[heads]) else {
      throw .invalid(
        "k.shape[\(heads)]", k.shape[heads], "must divide the \(q.shape[heads]) heads of q")
    }
    try k.requireSize((q.shape[dim], "the head dimension of q"), ofDimension: dim)
    try v.requireSize((k.shape[tokens], "the rows of k"), ofDimension: tokens)
    try v.requireSize((k.shape[heads], "the heads of k"), ofDimension: heads)
    try out.requireSize((q.shape[tokens], "the rows of q"), ofDimension: tokens)
    try out.requireSize((q.shape[heads], "the heads of q"), ofDimension: heads)
    try out.requireSize((v.shape[dim], "the head dimension of v"), ofDimension: dim)
    try lse?.requireSize((q.shape[heads], "the heads of q"), ofDimension: dim - 2)
    try lse?.requireSize((q.shape[tokens], "the rows of q"), ofDimension: dim - 1)
    try BatchSize.check(
      rows: tokens == 0 ? q.shape[0] : q.shape[0] * q.shape[tokens], numHeads: q.shape[heads],
      vHeadDim: v.shape[dim], field: "q.shape[\(tokens)]")
    guard q.shape.count == 4 else { return }
    let batch: CallTensor.SizeRule = (q.shape[0], "the batch of q")
    for tensor in [k, v, out] { try tensor.requireSize(batch, ofDimension: 0) }
    try lse?.requireSize(batch, ofDimension: 0)
  }
}
