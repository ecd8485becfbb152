import MLACUDAKernels

/// Which engine makes the first rows of a projection on a CUDA device, and why: all of the rules,
/// in their order.
enum CUDAProjectionEngine {
  /// As many rows as the plan's operation has.
  case cuDNN(CuDNNDevice, CuDNNPlan, CuDNNProjection)
  /// The library's own kernel, which makes all rows that there are.
  case own(Reason)

  enum Reason {
    /// Less than what the smallest plan is for.
    case fewRows
    /// Turned off, not there, or of a version that is not known.
    case noCuDNN
    /// A plan that is yet to be made while the run is captured into a graph.
    case capturing
    /// A plan that cuDNN would not make or did not run; one more than are made.
    case refused
    /// A plan that wants memory, of which a layer has none for it.
    case workspace
  }

  /// - Parameter type: of all three tensors.
  static func choice(
    _ product: mla_cuda_projection, _ type: ElementType, _ device: CUDADevice,
    _ launcher: CUDADevice.Launcher
  ) throws(MLAError) -> CUDAProjectionEngine {
    guard let projection = CuDNNProjection(product, type) else { return .own(.fewRows) }
    guard let cuDNN = CuDNNDevice.of(device) else { return .own(.noCuDNN) }
    switch try cuDNN.plan(.projection(projection), launcher) {
    case .plan(let plan):
      return plan.workspaceBytes == 0 ? .cuDNN(cuDNN, plan, projection) : .own(.workspace)
    case .refused: return .own(.refused)
    case .unknown: return .own(.capturing)
    }
  }
}

extension CuDNNProjection {
  /// Of the first rows of a product, as many as there is a plan for; nil where that is none.
  fileprivate init?(_ product: mla_cuda_projection, _ type: ElementType) {
    let (columns, depth) = (Int(product.column_count), Int(product.depth))
    let rows = Self.rowsOfPlans(columns: columns).last { $0 <= Int(product.row_count) }
    guard let rows else { return nil }
    self.init(
      type: type == .float16 ? .float16 : .bfloat16, rows: rows, columns: columns, depth: depth)
  }

  /// A few plans for all numbers of rows, which are made of these, the largest first. The
  /// smallest is work for a whole GPU, whose multiprocessors have 128 x 128 outputs at a time.
  static func rowsOfPlans(columns: Int) -> [Int] {
    var few = 128
    while few * columns < 1 << 21 { few *= 2 }
    return [few, 4 * few, 16 * few]
  }
}
