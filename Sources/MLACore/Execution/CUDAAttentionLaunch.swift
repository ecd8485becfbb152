import MLACUDAKernels

/// The parameter of one launch of an attention kernel, as it fills up.
struct CUDAAttentionLaunch {
  var parameter = mla_cuda_attention()
  /// Of its requests.
  private(set) var tiles = 0

  init(_ arguments: RunArguments, scaleLog2: Float, causal: CausalMask) {
    parameter.q = mla_cuda_rows(arguments.q)
    parameter.k = mla_cuda_rows(arguments.k)
    parameter.v = mla_cuda_rows(arguments.v)
    parameter.out = mla_cuda_rows(arguments.out)
    parameter.lse = mla_cuda_lse(arguments.lse)
    parameter.scale_log2 = scaleLog2
    parameter.out_multiplier = arguments.outputScale?.multiplier ?? 1
    parameter.out_type = arguments.out.type.rawValue
    parameter.is_causal = causal == .none ? 0 : 1
  }

  var isFull: Bool { parameter.request_count == Int32(MLA_CUDA_LAUNCH_REQUESTS) }

  /// One with queries; there must be room.
  mutating func append(_ span: RequestSpan) {
    let index = Int(parameter.request_count)
    precondition(index < Int(MLA_CUDA_LAUNCH_REQUESTS))
    mla_cuda_requests(&parameter)[index] = mla_cuda_request(
      first_tile: Int32(tiles), query_row: Int32(span.queryBegin),
      query_count: Int32(span.queryCount), key_row: Int32(span.keyBegin),
      key_count: Int32(span.keyCount))
    parameter.request_count += 1
    tiles += (span.queryCount - 1) / Int(MLA_CUDA_TILE_QUERIES) + 1
  }

  mutating func removeRequests() { (parameter.request_count, tiles) = (0, 0) }
}

extension mla_cuda_rows {
  /// [tokens, heads, dimension]
  init(_ view: TensorView) {
    self.init(
      data: UnsafeMutableRawPointer(bitPattern: view.address), token_stride: Int64(view.strides[0]),
      head_stride: Int64(view.strides[1]))
  }
}

extension mla_cuda_lse {
  /// [heads, tokens]; nil: not wanted.
  init(_ view: TensorView?) {
    self.init(
      data: view.flatMap { UnsafeMutablePointer(bitPattern: $0.address) },
      head_stride: Int64(view?.strides[0] ?? 0))
  }
}
