import MLAKernelABI

/// The latents and rotary parts of a batch's keys, wherever they lie: brought
/// from the paged cache and from the new tokens into rows of the layer's dtype.
struct LatentGather {
  let arguments: LayerArguments
  let config: LayerConfig
  let convert: (@convention(c) (UnsafePointer<mla_convert_args>?) -> Void)?

  /// Rows of the layer's dtype; `stride` in elements.
  struct Rows {
    let out: UnsafeMutableRawPointer
    let stride: Int
  }

  /// - Parameter keys: of one request, numbered as in `LayerBatch.keyBegins`.
  func gather(_ keys: Range<Int>, latents: Rows, rope: Rows) {
    let batch = arguments.batch
    let request = batch.request(ofKey: keys.lowerBound)
    let (begin, context) = (batch.keyBegins[request], batch.contextLens[request])
    let positions = keys.lowerBound - begin..<keys.upperBound - begin
    let latentPart = Part(dim: config.attention.kvLoraRank, rows: latents)
    let ropePart = Part(dim: config.attention.qkRopeHeadDim, rows: rope)
    if let cache = arguments.cache {
      cache.forEachRun(positions.clamped(to: 0..<context), of: request) { first, run in
        let rows = (run.lowerBound - positions.lowerBound, run.count)
        let (stride, scale) = (cache.tensor.strides[1], config.cacheScale)
        copy(cache.tensor, at: first, stride, to: latentPart, rows, times: scale)
        copy(cache.tensor, at: first + latentPart.dim, stride, to: ropePart, rows, times: scale)
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

  /// A part of what is known of a token.
  private struct Part {
    let dim: Int
    let rows: Rows
  }

  private func copy(
    _ tensor: TensorView, at offset: Int, _ stride: Int, to part: Part,
    _ rows: (first: Int, count: Int), times multiplier: Float
  ) {
    if part.dim == 0 { return }
    var args = mla_convert_args(
      rows: tensor.pointer(at: offset), row_stride: Int64(stride), num_rows: Int64(rows.count),
      row_dim: Int64(part.dim), format: tensor.type.rawValue, out_format: config.type.rawValue,
      multiplier: multiplier,
      out: part.rows.out + rows.first * part.rows.stride * config.type.bytes,
      out_stride: Int64(part.rows.stride))
    convert?(&args)
  }
}
