import MLAKernelABI

/// Keys and values made from latents, block by block: the rows of a block are
/// gathered from the cache and the new tokens, projected up for each head, and
/// packed.
struct LatentKeys: KeySource {
  let arguments: LayerArguments
  let weights: LayerWeights
  let config: LayerConfig
  let attention: mla_attention_kernel
  let projection: mla_projection_kernel
  let convert: (@convention(c) (UnsafePointer<mla_convert_args>?) -> Void)?

  /// Enough to make gathering cheap beside projecting, few enough to leave
  /// every thread a task. Bears on time only.
  var headsPerTask: Int { 4 }

  func pack(
    _ task: PackTask, into block: (Int) -> UnsafeMutableRawPointer,
    scratch start: UnsafeMutableRawPointer
  ) {
    let scratch = LatentScratch(config, attention, projection)
    let (latents, rows) = (start, start + scratch.rowsOffset)
    let tokens = start + scratch.tokensOffset
    gather(task.keys, latents, rows)
    var packTokens = mla_pack_rows_args(
      rows: latents, row_stride: Int64(rank), num_rows: Int64(task.keys.count),
      row_dim: Int64(rank), format: config.type.rawValue, packed: tokens)
    projection.pack_tokens(&packTokens)
    let values = rows + qkDim * config.type.bytes
    for (i, head) in task.heads.enumerated() {
      project(tokens, task.keys.count, weights.keys(head: head), nope, into: rows)
      project(tokens, task.keys.count, weights.values(head: head), vDim, into: values)
      var args = mla_pack_args(
        dims: config.attention.kernelDims, k: rows, v: values, k_stride: Int64(rowDim),
        v_stride: Int64(rowDim), num_keys: Int64(task.keys.count), format: config.type.rawValue,
        packed: block(task.firstBlock + i * task.blockStride))
      attention.pack(&args)
    }
  }

  private func project(
    _ tokens: UnsafeMutableRawPointer, _ count: Int, _ weights: UnsafeMutableRawPointer,
    _ dim: Int, into out: UnsafeMutableRawPointer
  ) {
    if dim == 0 { return }
    var args = mla_project_args(
      tokens: tokens, num_tokens: Int64(count), weights: weights, num_weights: Int64(dim),
      row_dim: Int64(rank), out_format: config.type.rawValue, out: out,
      out_stride: Int64(rowDim))
    projection.project(&args)
  }

  /// Latents go to `latents`; the rotary parts, which all heads share, to their
  /// place in the rows of keys.
  private func gather(
    _ keys: Range<Int>, _ latents: UnsafeMutableRawPointer, _ rows: UnsafeMutableRawPointer
  ) {
    let batch = arguments.batch
    let request = batch.request(ofKey: keys.lowerBound)
    let (begin, context) = (batch.keyBegins[request], batch.contextLens[request])
    let positions = keys.lowerBound - begin..<keys.upperBound - begin
    let latentPart = Part(dim: rank, out: latents, stride: rank)
    let ropePart = Part(dim: rope, out: rows + nope * config.type.bytes, stride: rowDim)
    if let cache = arguments.cache {
      cache.forEachRun(positions.clamped(to: 0..<context), of: request) { first, run in
        let rows = (run.lowerBound - positions.lowerBound, run.count)
        let (stride, scale) = (cache.tensor.strides[1], config.cacheScale)
        copy(cache.tensor, at: first, stride, to: latentPart, rows, times: scale)
        copy(cache.tensor, at: first + rank, stride, to: ropePart, rows, times: scale)
      }
    }
    let new = positions.clamped(to: context..<Int.max)
    guard !new.isEmpty else { return }
    let rows = (new.lowerBound - positions.lowerBound, new.count)
    let token = batch.queryStartLoc.begin(request) + new.lowerBound - context
    for (tensor, part) in [(arguments.latents, latentPart), (arguments.rope, ropePart)] {
      guard let tensor else { continue }
      let stride = tensor.strides[0]
      copy(tensor, at: token * stride, stride, to: part, rows, times: 1)
    }
  }

  /// A part of a block's rows.
  private struct Part {
    let dim: Int
    let out: UnsafeMutableRawPointer
    let stride: Int
  }

  private func copy(
    _ tensor: TensorView, at offset: Int, _ stride: Int, to part: Part,
    _ rows: (first: Int, count: Int), times multiplier: Float
  ) {
    if part.dim == 0 { return }
    var args = mla_convert_args(
      rows: tensor.pointer(at: offset), row_stride: Int64(stride), num_rows: Int64(rows.count),
      row_dim: Int64(part.dim), format: tensor.type.rawValue, out_format: config.type.rawValue,
      multiplier: multiplier, out: part.out + rows.first * part.stride * config.type.bytes,
      out_stride: Int64(part.stride))
    convert?(&args)
  }

  private var rank: Int { config.attention.kvLoraRank }
  private var nope: Int { config.attention.qkNopeHeadDim }
  private var rope: Int { config.attention.qkRopeHeadDim }
  private var vDim: Int { config.attention.vHeadDim }
  private var qkDim: Int { config.attention.qkHeadDim }
  private var rowDim: Int { qkDim + vDim }
}

/// What a worker keeps while it packs a block.
///
///     latents  [key_block][kv_lora_rank]
///     rows     [key_block][nope | rope | v_head_dim]  one head's keys and values
///     tokens   the latents as the projection kernel packs them
struct LatentScratch {
  let rowsOffset: Int
  let tokensOffset: Int
  let bytes: Int

  init(
    _ config: LayerConfig, _ attention: mla_attention_kernel, _ projection: mla_projection_kernel
  ) {
    let dims = config.attention
    let rows = Int(attention.key_block)
    func aligned(_ bytes: Int) -> Int { (bytes + 63) / 64 * 64 }
    rowsOffset = aligned(rows * dims.kvLoraRank * config.type.bytes)
    tokensOffset = rowsOffset + aligned(rows * (dims.qkHeadDim + dims.vHeadDim) * config.type.bytes)
    bytes =
      tokensOffset
      + Int(projection.packed_tokens_bytes(attention.key_block, Int64(dims.kvLoraRank)))
  }
}
