/// The part of a layer that a registered implementation plays: one object of it
/// for each call under way, for an object holds the batch it was prepared for.
final class RegisteredLayer: Sendable {
  private let backend: RegisteredBackend
  private let name: String
  private let config: LayerConfig
  private let idle: Guarded<[BackendObject]>

  /// Creates an object at once, so that a refusal comes before any forward call.
  init(_ backend: RegisteredBackend, name: String, _ config: LayerConfig) throws(MLAError) {
    self.backend = backend
    self.name = name
    self.config = config
    idle = Guarded([
      try BackendObject(name: name, config: config.attention, .registered(backend))
    ])
  }

  func forward(_ arguments: LayerArguments, on place: some LayerPlace) throws(MLAError) {
    if arguments.batch.queryStartLoc.rowCount == 0 { return }
    try withBackend { backend throws(MLAError) in
      let plan = try RegisteredPlan(
        arguments.batch, quantizes: arguments.outputScale != nil, config, for: backend, on: place)
      try place.withMemory(plan.memory, arguments) { start, work throws(MLAError) in
        try RegisteredRun(
          plan: plan, arguments: arguments, work: work, backend: backend, start: start
        ).execute()
      }
    }
  }

  func workspaceBytes(
    _ batch: LayerBatch, quantizes: Bool, on place: some LayerPlace
  ) throws(MLAError) -> Int {
    if batch.queryStartLoc.rowCount == 0 { return 0 }
    return try withBackend { backend throws(MLAError) in
      try RegisteredPlan(batch, quantizes: quantizes, config, for: backend, on: place)
        .memory.bytes
    }
  }

  private func withBackend<Result>(_ body: (BackendObject) throws(MLAError) -> Result)
    throws(MLAError) -> Result
  {
    let object: BackendObject
    if let kept = idle.withLock({ $0.popLast() }) {
      object = kept
    } else {
      object = try BackendObject(name: name, config: config.attention, .registered(backend))
      try Shortage.check()
    }
    defer { idle.withLock { $0.append(object) } }
    return try body(object)
  }
}
