import Glibc

/// cuDNN on one device: handles, and the plans that have been made for it.
final class CuDNNDevice: Sendable {
  let cuDNN: CuDNN
  private let device: CUDADevice
  /// Those that no call uses. A handle is one call's at a time.
  private let idleHandles = Guarded<[IdleHandle]>([])
  private let plans = Guarded<[Made]>([])

  private struct IdleHandle: @unchecked Sendable {
    let handle: CuDNN.Handle
  }

  private struct Made {
    let operation: CuDNNOperation
    /// nil: cuDNN will not have it.
    let plan: CuDNNPlan?
  }

  private init(_ cuDNN: CuDNN, _ device: CUDADevice) {
    (self.cuDNN, self.device) = (cuDNN, device)
  }

  // MARK: Plans

  enum Known {
    case plan(CuDNNPlan)
    case refused
    /// Yet to be made, which a capture has no room for.
    case unknown
  }

  /// More of them than models have: a host whose strides change from call to call would wait
  /// for cuDNN in each.
  private static let mostPlans = 256

  func known(_ operation: CuDNNOperation) -> Known {
    plans.withLock { Self.find(operation, in: $0) }
  }

  /// One that is made now where it is not known, unless the stream is captured.
  func plan(_ operation: CuDNNOperation, _ launcher: CUDADevice.Launcher) throws(MLAError) -> Known
  {
    let known = known(operation)
    guard case .unknown = known, try !launcher.isCapturing() else { return known }
    return try makePlan(operation, launcher).map(Known.plan) ?? .refused
  }

  private static func find(_ operation: CuDNNOperation, in plans: [Made]) -> Known {
    let made = plans.first { $0.operation == operation }
    guard let made else { return plans.count < mostPlans ? .unknown : .refused }
    return made.plan.map(Known.plan) ?? .refused
  }

  /// Takes a second where no process has made it before. What cuDNN refuses it is not asked
  /// for again.
  ///
  /// - Returns: nil where it is refused.
  func makePlan(
    _ operation: CuDNNOperation, _ launcher: CUDADevice.Launcher
  ) throws(MLAError) -> CuDNNPlan? {
    // Foreign code, and long: not under a lock. Of two calls that make the same, one keeps it.
    let plan = try launcher.besideCaptures { () throws(MLAError) -> CuDNNPlan? in
      do throws(CuDNN.Failure) {
        return try withHandle { handle throws(CuDNN.Failure) in
          try make(operation, handle)
        }
      } catch {
        Self.warn(operation.name, error)
        return nil
      }
    }
    if Shortage.isPresent { return plan }
    return plans.withLock { plans in
      if case .plan(let other) = Self.find(operation, in: plans) { return other }
      plans.append(Made(operation: operation, plan: plan))
      return plan
    }
  }

  /// Does without it from now on.
  private func drop(_ plan: CuDNNPlan, because failure: CuDNN.Failure) {
    Self.warn(plan.operation.name, failure)
    let dropped = plans.withLock { plans in
      let index = plans.firstIndex { $0.plan === plan }
      guard let index else { return nil as Made? }
      let dropped = plans[index]
      plans[index] = Made(operation: dropped.operation, plan: nil)
      return dropped
    }
    _ = consume dropped
  }

  private func make(
    _ operation: CuDNNOperation, _ handle: CuDNN.Handle
  ) throws(CuDNN.Failure) -> CuDNNPlan {
    let properties = try CuDNNDescriptor(cuDNN, .deviceProperties)
    try properties.set(CuDNN.Attribute.Device.handle, handle)
    try properties.finalize()
    return try CuDNNPlanFiles(cuDNN, device).plan(operation, for: properties)
  }

  // MARK: Runs

  /// Runs `body`, which puts a plan's work on the launcher's stream. One that fails is done
  /// without from now on.
  ///
  /// - Returns: whether it is there.
  func start(
    _ plan: CuDNNPlan, _ launcher: CUDADevice.Launcher,
    _ body: () throws(CuDNN.Failure) -> Void
  ) throws(MLAError) -> Bool {
    // It may load code when it runs a plan for the first time.
    try launcher.besideCaptures { () throws(MLAError) in
      do throws(CuDNN.Failure) {
        try body()
        return true
      } catch {
        drop(plan, because: error)
        return false
      }
    }
  }

  /// Puts a plan's work on the launcher's stream.
  func run(_ plan: CuDNNPlan, _ pack: CuDNNDescriptor, _ launcher: CUDADevice.Launcher)
    throws(CuDNN.Failure)
  {
    try withHandle { handle throws(CuDNN.Failure) in
      try cuDNN.check("cudnnSetStream") { cuDNN.setStream(handle, launcher.stream) }
      try cuDNN.check("cudnnBackendExecute") {
        cuDNN.execute(handle, plan.descriptor.handle, pack.handle)
      }
    }
  }

  private func withHandle<Value>(
    _ body: (CuDNN.Handle) throws(CuDNN.Failure) -> Value
  ) throws(CuDNN.Failure) -> Value {
    let used = idleHandles.withLock { $0.popLast() }
    let idle = if let used { used } else { try makeHandle() }
    // One that has failed may be broken, and is never used again.
    let value = try body(idle.handle)
    idleHandles.withLock { $0.append(idle) }
    return value
  }

  private func makeHandle() throws(CuDNN.Failure) -> IdleHandle {
    var handle: CuDNN.Handle?
    try cuDNN.check("cudnnCreate") { cuDNN.createHandle(&handle) }
    guard let handle else { throw CuDNN.Failure(text: "cudnnCreate: gave nothing") }
    return IdleHandle(handle: handle)
  }
}

extension CuDNNDevice {
  /// nil where cuDNN is turned off or not to be had.
  static func of(_ device: CUDADevice) -> CuDNNDevice? {
    guard let cuDNN = library else { return nil }
    return known.withLock { known in
      if let found = known.first(where: { $0.device === device }) { return found }
      let made = CuDNNDevice(cuDNN, device)
      if !Shortage.isPresent { known.append(made) }
      return made
    }
  }

  private static let known = PerProcess<[CuDNNDevice]>([])

  /// Loaded when it is first wanted; where it does not serve, that is said once.
  private static var library: CuDNN? {
    if let found = loaded.withLock({ $0 }) { return found }
    var refusal: CuDNN.Failure?
    var library: CuDNN?
    do throws(CuDNN.Failure) { library = try load() } catch { refusal = error }
    // Of two threads that load it, one says so.
    let isFirst = loaded.withLock { loaded in
      defer { loaded = .some(library) }
      return loaded == nil
    }
    if isFirst, let refusal { warn("attention", refusal) }
    return library
  }

  private static let loaded = Guarded<CuDNN??>(nil)

  /// That which MLA_CUDNN_LIBRARY names; else, if any can be loaded, that which the process has
  /// loaded already, as torch does, or the linker finds.
  ///
  /// - Returns: nil where there is none, which is no fault.
  private static func load() throws(CuDNN.Failure) -> CuDNN? {
    let named = getenv("MLA_CUDNN_LIBRARY").map { String(cString: $0) } ?? ""
    if named == "off" { return nil }
    let library: DynamicLibrary
    do throws(DynamicLibraryError) {
      library = try DynamicLibrary(named.isEmpty ? "libcudnn.so.9" : named)
    } catch {
      guard named.isEmpty else { throw CuDNN.Failure(text: error.text) }
      return nil
    }
    return try CuDNN(library)
  }

  private static func warn(_ what: StaticString, _ failure: CuDNN.Failure) {
    Log.warning("cuDNN does not serve \(what), the library's own kernels do: \(failure.text)")
  }
}
