/// What cuDNN has compiled for one kind of device.
final class CuDNNPlan: Sendable {
  let operation: CuDNNOperation
  let workspaceBytes: Int
  let descriptor: CuDNNDescriptor

  private typealias Attribute = CuDNN.Attribute

  /// - Parameter device: properties of the device.
  static func compile(
    _ cuDNN: CuDNN, _ operation: CuDNNOperation, for device: CuDNNDescriptor
  ) throws(CuDNN.Failure) -> CuDNNPlan {
    let heuristics = try CuDNNDescriptor(cuDNN, .engineHeuristics)
    try heuristics.set(Attribute.Heuristics.graph, operation.graph(cuDNN))
    try heuristics.set(Attribute.Heuristics.mode, CuDNN.heuristicsModeA)
    try heuristics.set(Attribute.Heuristics.device, device)
    try heuristics.finalize()
    let choice = try CuDNNDescriptor(cuDNN, .engineConfig)
    choice.keep(heuristics)
    var handle = choice.handle
    guard try heuristics.get(Attribute.Heuristics.results, &handle, room: 1) > 0 else {
      throw CuDNN.Failure(text: "no engine for \(operation.name)")
    }
    return try CuDNNPlan(cuDNN, operation, device) { plan throws(CuDNN.Failure) in
      try plan.set(Attribute.Plan.engineConfig, choice)
    }
  }

  /// - Parameter serialised: what `serialised()` gave, of the same operation.
  static func load(
    _ serialised: FixedArray<UInt8>, _ cuDNN: CuDNN, _ operation: CuDNNOperation,
    for device: CuDNNDescriptor
  ) throws(CuDNN.Failure) -> CuDNNPlan {
    try CuDNNPlan(cuDNN, operation, device) { plan throws(CuDNN.Failure) in
      try plan.set(Attribute.Plan.json, serialised.pointer, count: serialised.count)
    }
  }

  private init(
    _ cuDNN: CuDNN, _ operation: CuDNNOperation, _ device: CuDNNDescriptor,
    describe: (CuDNNDescriptor) throws(CuDNN.Failure) -> Void
  ) throws(CuDNN.Failure) {
    self.operation = operation
    descriptor = try CuDNNDescriptor(cuDNN, .executionPlan)
    try describe(descriptor)
    try descriptor.set(Attribute.Plan.device, device)
    try descriptor.finalize()
    var bytes: Int64 = 0
    try descriptor.get(Attribute.Plan.workspaceSize, &bytes, room: 1)
    workspaceBytes = Int(bytes)
  }

  func serialised() throws(CuDNN.Failure) -> FixedArray<UInt8> {
    let count = try descriptor.get(Attribute.Plan.json, nil, room: 0)
    let bytes = try CuDNN.allocating { () throws(MLAError) in
      try FixedArray<UInt8>(repeating: 0, count: count, for: "a plan of cuDNN's")
    }
    try descriptor.get(
      Attribute.Plan.json, UnsafeMutableRawPointer(mutating: bytes.pointer), room: count)
    return bytes
  }
}
