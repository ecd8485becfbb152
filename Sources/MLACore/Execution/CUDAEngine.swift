/// Which engine serves a run on a CUDA device, and why: all of the rules, in their order.
enum CUDAEngine {
  case cuDNN(CuDNNRun)
  /// The library's own kernels, which serve whatever a backend takes.
  case own(Reason)

  enum Reason {
    /// fp8.
    case outputOfAnotherType
    /// The largest score is looked for before scores are scaled.
    case scaleNotPositive
    /// In every request one query or key at most; more requests or rows than plans are for; a
    /// mask that leaves a query without keys.
    case lengths
    /// Addresses or strides that are no multiples of 16 bytes; rows or heads that repeat.
    case layout
    /// Turned off, not there, or of a version that is not known.
    case noCuDNN
    /// A plan that is yet to be made while the run is captured into a graph.
    case capturing
    /// A plan that cuDNN would not make, for the head dimensions say, or did not run; one more
    /// than are made.
    case refused
    /// Too little of the caller's while the run is captured.
    case noWorkspace
  }

  /// - Parameter scale: of the scores.
  static func choice(
    _ spans: RequestSpans, _ arguments: RunArguments, scale: Float, _ device: CUDADevice,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) -> CUDAEngine {
    guard arguments.out.type == arguments.q.type else { return .own(.outputOfAnotherType) }
    guard scale > 0 else { return .own(.scaleNotPositive) }
    let sizes = CuDNNAttention.Sizes(spans, lseHeadStride: arguments.lse?.strides[0] ?? 0)
    guard let bounds = sizes.ofPlan, let mask = CuDNNAttention.Mask(spans) else {
      return .own(.lengths)
    }
    guard let attention = CuDNNAttention(arguments, mask) else { return .own(.layout) }
    guard let cuDNN = CuDNNDevice.of(device) else { return .own(.noCuDNN) }
    let plan: CuDNNPlan
    switch try cuDNN.plan(.attention(attention, atMost: bounds), launcher) {
    case .plan(let known): plan = known
    case .refused: return .own(.refused)
    case .unknown: return .own(.capturing)
    }
    let bytes = CuDNNRun.Memory.bytes(requests: sizes.requests, plan: plan.workspaceBytes)
    let workspace = arguments.workspace.flatMap { $0.size >= bytes ? $0 : nil }
    if workspace == nil, try launcher.isCapturing() { return .own(.noWorkspace) }
    return .cuDNN(
      CuDNNRun(
        cuDNN: cuDNN, plan: plan, attention: attention, sizes: sizes, workspace: workspace,
        scale: scale))
  }
}
