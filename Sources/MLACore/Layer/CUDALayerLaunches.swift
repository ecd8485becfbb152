import CMLAPrefill
import MLACUDAKernels

/// What makes keys and values of latents, put on the caller's stream.
struct CUDALayerLaunches {
  let place: CUDALayerPlace
  let arguments: LayerArguments
  let launcher: CUDADevice.Launcher

  private var config: LayerConfig { place.config }

  /// Latents and rotary parts side by side, [rows, kv_lora_rank] and [rows, qk_rope_head_dim].
  struct Tokens {
    let latents: mla_cuda_rows
    let rope: mla_cuda_rows
    let rows: Int

    init(at start: UnsafeMutableRawPointer, rows: Int, _ config: LayerConfig) {
      let ropeWidth = config.attention.qkRopeHeadDim
      self.rows = rows
      latents = mla_cuda_rows(
        data: start, token_stride: Int64(config.attention.kvLoraRank), head_stride: 0)
      rope = mla_cuda_rows(
        data: ropeWidth == 0 ? nil : start + CUDALayerMemory.latentBytes(rows, config),
        token_stride: Int64(ropeWidth), head_stride: 0)
    }
  }

  func gather(_ spans: some Collection<RowSpan>, into tokens: Tokens) throws(MLAError) {
    var launch = CUDALayerTokensLaunch(arguments, to: tokens, config)
    for span in spans where !span.keys.isEmpty {
      try arguments.forEachSource(of: span) { source throws(MLAError) in
        if launch.isFull { try submit(&launch) }
        launch.append(source)
      }
    }
    try submit(&launch)
  }

  private func submit(_ launch: inout CUDALayerTokensLaunch) throws(MLAError) {
    let tokens = Int(launch.parameter.token_count)
    guard tokens > 0 else { return }
    let blocks = (tokens - 1) / Int(MLA_CUDA_GATHER_TOKENS) + 1
    try launcher.launch(place.kernels.gather, grid: (blocks, 1), &launch.parameter)
    launch.removeSpans()
  }

  /// What kv_b_proj makes for some heads, dense.
  func project(_ tokens: Tokens, _ heads: Range<Int>, to projected: TensorView) throws(MLAError) {
    guard tokens.rows > 0 else { return }
    let columns = projected.strides[0]
    let rank = config.attention.kvLoraRank
    let firstWeight = heads.lowerBound * projected.shape[2] * rank * config.type.bytes
    let product = mla_cuda_projection(
      in: tokens.latents,
      weights: mla_cuda_rows(
        data: UnsafeMutableRawPointer(bitPattern: place.weights.address + UInt(firstWeight)),
        token_stride: Int64(rank), head_stride: 0),
      out: mla_cuda_rows(projected), row_count: Int32(tokens.rows), column_count: Int32(columns),
      depth: Int32(rank), reserved: 0)
    try place.projection.run(product, launcher)
  }

  /// Each head's own part beside the rotary one.
  func concat(_ projected: TensorView, _ tokens: Tokens, to keys: TensorView) throws(MLAError) {
    guard tokens.rows > 0 else { return }
    let dims = config.attention
    var parameter = mla_cuda_keys(
      nope: mla_cuda_rows(projected), rope: tokens.rope, keys: mla_cuda_rows(keys),
      head_count: Int32(projected.shape[1]), nope_width: Int32(dims.qkNopeHeadDim),
      rope_width: Int32(dims.qkRopeHeadDim), reserved: 0)
    try launcher.launch(place.kernels.concat, grid: (tokens.rows, 1), &parameter)
  }
}
