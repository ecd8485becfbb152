import MLACUDAKernels

/// A batch's attention by a plan of cuDNN's.
struct CuDNNRun {
  let cuDNN: CuDNNDevice
  let plan: CuDNNPlan
  let attention: CuDNNAttention
  /// Of the batch.
  let sizes: CuDNNAttention.Sizes
  /// The caller's; nil: memory of the stream's.
  let workspace: Workspace?
  let scale: Float

  /// Puts it on the launcher's stream. What requests without keys get is undefined.
  ///
  /// - Returns: whether it is there.
  func start(
    _ spans: RequestSpans, _ arguments: RunArguments, upload: CUDAUpload,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) -> Bool {
    func start(at address: UInt) throws(MLAError) -> Bool {
      try self.start(
        spans, arguments,
        Memory(spans, attention.mask, plan: plan.workspaceBytes, at: address), upload: upload,
        launcher)
    }
    if let workspace {
      let address = UInt(bitPattern: workspace.start)
      try launcher.requireOwnMemory(address, "workspace")
      return try start(at: address)
    }
    let bytes = Memory.bytes(requests: sizes.requests, plan: plan.workspaceBytes)
    var isThere = false
    // Without memory the library's own kernels serve; whatever else is wrong is wrong for them.
    _ = try? launcher.withMemory(of: bytes) { memory throws(MLAError) in
      isThere = try start(at: UInt(bitPattern: memory))
    }
    return isThere
  }

  private func start(
    _ spans: RequestSpans, _ arguments: RunArguments, _ memory: Memory, upload: CUDAUpload,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) -> Bool {
    try upload.put(spans.queries, at: memory.queryOffsets, launcher)
    if memory.keyOffsets != memory.queryOffsets {
      try upload.put(spans.keys, at: memory.keyOffsets, launcher)
    }
    return try cuDNN.start(plan, launcher) { () throws(CuDNN.Failure) in
      try execute(arguments, memory, launcher)
    }
  }

  private func execute(
    _ arguments: RunArguments, _ memory: Memory, _ launcher: CUDADevice.Launcher
  ) throws(CuDNN.Failure) {
    var numbers: (scale: Float, maskValue: Float) = (scale, -.infinity)
    try withUnsafeMutableBytes(of: &numbers) { numbers throws(CuDNN.Failure) in
      let pack = try CuDNNPack.make(
        cuDNN.cuDNN, attention, sizes, workspace: UnsafeMutableRawPointer(bitPattern: memory.plans)
      ) { tensor in
        switch tensor {
        case .scale: numbers.baseAddress
        case .maskValue: numbers.baseAddress.map { $0 + MemoryLayout<Float>.size }
        default:
          UnsafeMutableRawPointer(bitPattern: address(of: tensor, arguments, memory))
        }
      }
      try cuDNN.run(plan, pack, launcher)
    }
  }

  private func address(
    of tensor: CuDNNAttention.Tensor, _ arguments: RunArguments, _ memory: Memory
  ) -> UInt {
    switch tensor {
    case .q: arguments.q.address
    case .k: arguments.k.address
    case .v: arguments.v.address
    case .out: arguments.out.address
    case .lse: arguments.lse?.address ?? 0
    case .queryOffsets: memory.queryOffsets
    case .keyOffsets: memory.keyOffsets
    case .scale, .maskValue, .scores, .unmasked, .masked, .weights: 0
    }
  }
}

extension CuDNNRun {
  /// What is where in the workspace: the plan's own, and offsets of the queries and the keys.
  struct Memory {
    let queryOffsets: UInt
    let keyOffsets: UInt
    let plans: UInt

    /// - Parameter address: of as many bytes as `bytes` says.
    init(_ spans: RequestSpans, _ mask: CuDNNAttention.Mask, plan: Int, at address: UInt) {
      plans = Self.aligned(address)
      queryOffsets = plans + Self.aligned(UInt(plan))
      // A request's own rows are one list.
      keyOffsets =
        mask == .topLeft ? queryOffsets : queryOffsets + Self.offsetBytes(spans.count)
    }

    /// Enough for any plan for as many requests.
    static func bytes(_ sizes: CuDNNAttention.Sizes) -> Int {
      guard let bounds = sizes.ofPlan else { return 0 }
      return bytes(requests: sizes.requests, plan: 4096 + 272 * bounds.requests)
    }

    static func bytes(requests: Int, plan: Int) -> Int {
      Int(alignment - 1 + aligned(UInt(plan)) + 2 * offsetBytes(requests))
    }

    private static func offsetBytes(_ requests: Int) -> UInt {
      aligned(UInt(requests + 1) * UInt(MemoryLayout<Int32>.size))
    }

    private static func aligned(_ number: UInt) -> UInt { (number + alignment - 1) & ~(alignment - 1) }

    /// As memory of the device is had.
    private static let alignment: UInt = 256
  }
}

extension CuDNNAttention {
  /// nil where cuDNN does not take them as they lie.
  init?(_ arguments: RunArguments, _ mask: Mask) {
    let (q, k, v, out) = (arguments.q, arguments.k, arguments.v, arguments.out)
    let type: CuDNN.DataType
    switch q.type {
    case .bfloat16: type = .bfloat16
    case .float16: type = .float16
    case .float32, .float8E4M3, .float8E8M0: return nil
    }
    guard let qRows = Rows(q), let kRows = Rows(k), let vRows = Rows(v), let outRows = Rows(out),
      (arguments.lse?.address ?? 0) % UInt(CuDNN.alignment) == 0
    else { return nil }
    self.init(
      type: type, heads: q.shape[1], qkHeadDim: q.shape[2], vHeadDim: v.shape[2], q: qRows,
      k: kRows, v: vRows, out: outRows, mask: mask, givesLSE: arguments.lse != nil)
  }
}

extension CuDNNAttention.Mask {
  /// nil where cuDNN has none such, or a query may see no key, of which it does not say what it
  /// gives.
  init?(_ spans: RequestSpans) {
    if spans.causal == .none {
      self = .none
    } else if spans.queries == spans.keys {
      self = .topLeft
    } else if spans.causal == .end,
      spans.indices.allSatisfy({ spans.queries.count($0) <= spans.keys.count($0) })
    {
      self = .bottomRight
    } else {
      return nil
    }
  }
}

extension CuDNNAttention.Rows {
  fileprivate init?(_ view: TensorView) {
    // A dimension of one has no stride of its own.
    let headStride = view.shape[1] == 1 ? view.strides[0] : view.strides[1]
    let unit = CuDNN.alignment / view.type.bytes
    guard view.address % UInt(CuDNN.alignment) == 0, view.shape[2] % unit == 0,
      view.strides[0] > 0, view.strides[0] % unit == 0, headStride > 0, headStride % unit == 0
    else { return nil }
    self.init(rowStride: view.strides[0], headStride: headStride)
  }
}

extension CuDNNAttention.Sizes {
  init(_ spans: RequestSpans, lseHeadStride: Int) {
    let queries = spans.queries.longest
    self.init(
      requests: spans.count, queries: queries,
      keys: spans.keys == spans.queries ? queries : spans.keys.longest,
      lseHeadStride: lseHeadStride)
  }

  /// Of the plan that serves batches of such sizes, few for all that there may be: what a plan
  /// is run with may be less, never more, which is what its workspace is for. nil where there
  /// is none. cuDNN takes other kernels for few rows than for many, and again others for one,
  /// which is no prefill.
  var ofPlan: Self? {
    guard queries > 1, keys > 1,
      let requests = [64, 512, 4096].first(where: { requests <= $0 }),
      let queries = Self.rows.first(where: { queries <= $0 }),
      let keys = Self.rows.first(where: { keys <= $0 })
    else { return nil }
    return Self(
      requests: requests, queries: queries, keys: keys, lseHeadStride: requests * queries)
  }

  private static let rows = [128, 1 << 17]
}
