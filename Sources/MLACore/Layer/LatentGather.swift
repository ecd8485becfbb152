/// The latents and rotary parts of a batch's keys, wherever they lie: brought
/// from the paged cache and from the new tokens into rows of the layer's dtype.
struct LatentGather {
  let arguments: LayerArguments
  let config: LayerConfig
  let table: KernelTable

  /// - Parameter keys: of one request, numbered as in `LayerBatch.keyBegins`.
  func gather(_ keys: Range<Int>, latents: RowTarget, rope: RowTarget) {
    let batch = arguments.batch
    let request = batch.request(ofKey: keys.lowerBound)
    let begin = batch.keyBegins[request]
    gather(
      keys.lowerBound - begin..<keys.upperBound - begin, of: request, latents: latents, rope: rope)
  }

  /// - Parameter positions: counted from the request's first key.
  func gather(_ positions: Range<Int>, of request: Int, latents: RowTarget, rope: RowTarget) {
    let batch = arguments.batch
    let cached = batch.cachedKeys(request)
    arguments.cache?.read(
      positions.clamped(to: 0..<cached), of: request, latents: latents,
      rope: config.attention.qkRopeHeadDim == 0 ? nil : rope, config.type, table)
    let new = positions.clamped(to: cached..<Int.max)
    guard !new.isEmpty else { return }
    let row = new.lowerBound - positions.lowerBound
    let token = batch.queryStartLoc.begin(request) + new.lowerBound - cached
    for (tensor, rows) in [(arguments.latents, latents), (arguments.rope, rope)] {
      guard let tensor, tensor.shape[1] > 0 else { continue }
      RowSource(
        rows: tensor.pointer(at: token * tensor.strides[0]), stride: tensor.strides[0],
        type: tensor.type
      ).convert(
        dim: tensor.shape[1], count: new.count, to: rows.from(row, config.type), config.type, table)
    }
  }
}
