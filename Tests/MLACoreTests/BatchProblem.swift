import CMLAPrefill
import MLACore
import MLATestSupport

/// A ragged batch with its numbers, run by a backend object through the structs
/// of the header. Never changed once it is made.
struct BatchProblem: @unchecked Sendable {
  struct Result {
    let out: PoisonedTensor
    let lse: PoisonedTensor
  }

  let format: ElementFormat
  let numHeads: Int
  let nope: Int
  let rope: Int
  let vDim: Int
  let scale: Double
  let queryStarts: [Int32]
  let keyStarts: [Int32]
  /// New tokens: q and k have the same rows and a causal mask.
  let isCausal: Bool
  let q: PoisonedTensor
  let k: PoisonedTensor
  let v: PoisonedTensor

  /// - Parameter keyLengths: nil: new tokens, as many keys as queries.
  init(
    _ format: ElementFormat, numHeads: Int, dims: (nope: Int, rope: Int, v: Int),
    queryLengths: [Int], keyLengths: [Int]? = nil, deviation: Double = 1,
    _ random: inout SplitMix64
  ) {
    self.format = format
    self.numHeads = numHeads
    (nope, rope, vDim) = dims
    isCausal = keyLengths == nil
    queryStarts = offsets(queryLengths)
    keyStarts = offsets(keyLengths ?? queryLengths)
    let qkDim = nope + rope
    scale = deviation / Double(qkDim).squareRoot()
    func tensor(_ rows: Int32?, _ dim: Int) -> PoisonedTensor {
      let tensor = PoisonedTensor(
        format, rows: Int(rows ?? 0), heads: numHeads, dim: dim, headGap: random.int(0...9),
        rowGap: random.int(0...9))
      tensor.fillNormal(&random)
      return tensor
    }
    q = tensor(queryStarts.last, qkDim)
    k = tensor(keyStarts.last, qkDim)
    v = tensor(keyStarts.last, vDim)
  }

  /// The same numbers, one request alone.
  func request(_ index: Int) -> BatchProblem { BatchProblem(alone: index, of: self) }

  private init(alone index: Int, of batch: BatchProblem) {
    (format, numHeads, nope, rope, vDim, scale, isCausal) =
      (
        batch.format, batch.numHeads, batch.nope, batch.rope, batch.vDim, batch.scale,
        batch.isCausal
      )
    let queries = Int(batch.queryStarts[index])..<Int(batch.queryStarts[index + 1])
    let keys = Int(batch.keyStarts[index])..<Int(batch.keyStarts[index + 1])
    queryStarts = [0, Int32(queries.count)]
    keyStarts = [0, Int32(keys.count)]
    q = copy(batch.q, rows: queries)
    k = copy(batch.k, rows: keys)
    v = copy(batch.v, rows: keys)
  }

  var reference: ReferenceAttention {
    ReferenceAttention(
      q: q, k: k, v: v, queryStarts: queryStarts, keyStarts: keyStarts, scale: scale,
      causal: isCausal)
  }

  func makeBackend(_ name: String, maxISA: Int32 = 0) throws -> BackendObject {
    var config = mla_backend_config(
      struct_size: UInt32(MemoryLayout<mla_backend_config>.size), num_heads: Int32(numHeads),
      scale: scale, kv_lora_rank: 512, qk_nope_head_dim: Int32(nope),
      qk_rope_head_dim: Int32(rope), v_head_dim: Int32(vDim), max_isa: maxISA, ignore_override: 0,
      device_type: 0, device_id: 0)
    let backend = try Registry.shared.makeBackend(name, &config)
    try prepare(backend)
    return backend
  }

  func prepare(_ backend: BackendObject) throws {
    try queryStarts.withUnsafeBufferPointer { queries in
      try keyStarts.withUnsafeBufferPointer { keys in
        var chunk = chunk(queries.baseAddress, keys.baseAddress)
        try withUnsafePointer(to: &chunk) { chunk in
          var metadata = mla_prefill_metadata(
            struct_size: UInt32(MemoryLayout<mla_prefill_metadata>.size),
            num_requests: Int32(queryStarts.count - 1), query_start_loc: queries.baseAddress,
            chunks: isCausal ? nil : chunk, num_chunks: isCausal ? 0 : 1, reserved: 0,
            device_query_start_loc: nil)
          try backend.prepareMetadata(&metadata)
        }
      }
    }
  }

  /// - Parameters:
  ///   - outFormat: nil: that of q.
  ///   - outputScale: an array of one, or nil.
  func run(
    _ backend: BackendObject, outFormat: ElementFormat? = nil, outputScale: [Float]? = nil,
    workspace: UnsafeMutableRawBufferPointer? = nil
  ) throws -> Result {
    let out = PoisonedTensor(
      outFormat ?? format, rows: q.rows, heads: numHeads, dim: vDim, headGap: 5,
      rowGap: 3)
    let lse = PoisonedTensor(.float32, rows: numHeads, dim: q.rows, rowGap: 7)
    var (qv, kv, vv, ov) = (view(q), view(k), view(v), view(out))
    var lv = view(lse)
    (lv.ndim, lv.shape, lv.strides) = (
      2, (Int64(numHeads), Int64(q.rows), 0, 0), (Int64(lse.rowStride), 1, 0, 0)
    )
    if isCausal {
      var args = mla_new_tokens_args(
        struct_size: UInt32(MemoryLayout<mla_new_tokens_args>.size), reserved: 0, q: address(&qv),
        k: address(&kv), v: address(&vv), out: address(&ov), lse: address(&lv), output_scale: nil,
        workspace: workspace?.baseAddress, workspace_size: Int64(workspace?.count ?? 0),
        stream: nil)
      guard let outputScale else {
        try backend.runPrefillNewTokens(&args)
        return Result(out: out, lse: lse)
      }
      try outputScale.withUnsafeBufferPointer { scale in
        args.output_scale = scale.baseAddress
        try backend.runPrefillNewTokens(&args)
      }
    } else {
      try queryStarts.withUnsafeBufferPointer { queries in
        try keyStarts.withUnsafeBufferPointer { keys in
          var chunk = chunk(queries.baseAddress, keys.baseAddress)
          var args = mla_context_chunk_args(
            struct_size: UInt32(MemoryLayout<mla_context_chunk_args>.size), reserved: 0,
            chunk: address(&chunk), q: address(&qv), k: address(&kv), v: address(&vv),
            out: address(&ov), lse: address(&lv), workspace: workspace?.baseAddress,
            workspace_size: Int64(workspace?.count ?? 0), stream: nil,
            device_query_start_loc: nil, device_cu_seq_lens: nil)
          try backend.runPrefillContextChunk(&args)
        }
      }
    }
    return Result(out: out, lse: lse)
  }

  private func chunk(_ queries: UnsafePointer<Int32>?, _ keys: UnsafePointer<Int32>?)
    -> mla_context_chunk
  {
    mla_context_chunk(
      struct_size: UInt32(MemoryLayout<mla_context_chunk>.size), index: 0,
      num_requests: Int32(queryStarts.count - 1), reserved: 0, query_start_loc: queries,
      cu_seq_lens: keys)
  }
}

private func offsets(_ lengths: [Int]) -> [Int32] {
  var starts: [Int32] = [0]
  for length in lengths { starts.append(starts[starts.count - 1] + Int32(length)) }
  return starts
}

private func copy(_ tensor: PoisonedTensor, rows: Range<Int>) -> PoisonedTensor {
  let part = PoisonedTensor(
    tensor.format, rows: rows.count, heads: tensor.heads, dim: tensor.dim, rowGap: 2)
  for (i, row) in rows.enumerated() {
    for head in 0..<tensor.heads {
      for d in 0..<tensor.dim { part[i, head, d] = tensor[row, head, d] }
    }
  }
  return part
}

private func view(_ tensor: PoisonedTensor) -> mla_tensor {
  mla_tensor(
    struct_size: UInt32(MemoryLayout<mla_tensor>.size), dtype: tensor.format.rawValue,
    data: tensor.pointer(), device_type: Int32(MLA_DEVICE_CPU), device_id: 0, ndim: 3, reserved: 0,
    shape: (Int64(tensor.rows), Int64(tensor.heads), Int64(tensor.dim), 0),
    strides: (Int64(tensor.rowStride), Int64(tensor.headStride), 1, 0))
}

/// The structs live in the caller's frame until it returns.
private func address<T>(_ value: UnsafeMutablePointer<T>) -> UnsafePointer<T> {
  UnsafePointer(value)
}
