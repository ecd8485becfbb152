/// cuDNN's plans for a backend made before its first run, for tensors as vLLM has them: dense
/// but for v, which lies beside the keys' part in kv_nope; and for a layer of all its heads.
enum CuDNNWarmUp {
  static func run(_ config: BackendConfig, _ device: CUDADevice) throws(MLAError) {
    guard let cuDNN = CuDNNDevice.of(device) else { return }
    try device.onStream(nil) { launcher throws(MLAError) in
      // A backend does not know of which its tensors will be.
      for type in [CuDNN.DataType.bfloat16, .float16] {
        let attentions = runs.compactMap { attention($0, type, config) }
        for operation in attentions + projections(type, config) {
          guard case .unknown = cuDNN.known(operation) else { continue }
          _ = try cuDNN.makePlan(operation, launcher)
        }
      }
    }
  }

  private static func attention(
    _ run: Run, _ type: CuDNN.DataType, _ config: BackendConfig
  ) -> CuDNNOperation? {
    let attention = CuDNNAttention(config, type, mask: run.mask, givesLSE: run.givesLSE)
    let sizes = CuDNNAttention.Sizes(
      requests: 1, queries: run.queries, keys: run.keys, lseHeadStride: 0)
    return sizes.ofPlan.map { .attention(attention, atMost: $0) }
  }

  private static func projections(_ type: CuDNN.DataType, _ config: BackendConfig)
    -> [CuDNNOperation]
  {
    let columns = config.numHeads * (config.qkNopeHeadDim + config.vHeadDim)
    let depth = config.kvLoraRank
    // Others no layer has on a device.
    guard columns % 8 == 0, depth > 0, depth % 64 == 0 else { return [] }
    return CuDNNProjection.rowsOfPlans(columns: columns).map {
      .projection(CuDNNProjection(type: type, rows: $0, columns: columns, depth: depth))
    }
  }

  private struct Run {
    let mask: CuDNNAttention.Mask
    let givesLSE: Bool
    let queries: Int
    let keys: Int
  }

  /// New tokens alone, new tokens after context, their context, both at once in a layer; each
  /// of few and of many rows.
  private static let runs = [
    Run(mask: .topLeft, givesLSE: false, queries: few, keys: few),
    Run(mask: .topLeft, givesLSE: false, queries: many, keys: many),
    Run(mask: .topLeft, givesLSE: true, queries: few, keys: few),
    Run(mask: .topLeft, givesLSE: true, queries: many, keys: many),
    Run(mask: .none, givesLSE: true, queries: few, keys: many),
    Run(mask: .none, givesLSE: true, queries: many, keys: many),
    Run(mask: .bottomRight, givesLSE: false, queries: few, keys: many),
    Run(mask: .bottomRight, givesLSE: false, queries: many, keys: many),
  ]

  private static let few = 100
  private static let many = 1000
}

extension CuDNNAttention {
  fileprivate init(
    _ config: BackendConfig, _ type: CuDNN.DataType, mask: Mask, givesLSE: Bool
  ) {
    func rows(_ width: Int) -> Rows {
      Rows(rowStride: config.numHeads * width, headStride: width)
    }
    self.init(
      type: type, heads: config.numHeads, qkHeadDim: config.qkHeadDim,
      vHeadDim: config.vHeadDim, q: rows(config.qkHeadDim), k: rows(config.qkHeadDim),
      v: rows(config.qkNopeHeadDim + config.vHeadDim), out: rows(config.vHeadDim),
      mask: mask, givesLSE: givesLSE)
  }
}
