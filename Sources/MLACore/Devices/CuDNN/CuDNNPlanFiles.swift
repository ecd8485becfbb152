/// Plans for a device as they are kept in files: made by one process, loaded by others.
struct CuDNNPlanFiles {
  private let cuDNN: CuDNN
  private let device: CUDADevice
  private let cache = CodeCache()

  init(_ cuDNN: CuDNN, _ device: CUDADevice) { (self.cuDNN, self.device) = (cuDNN, device) }

  /// From its file, else compiled and kept.
  func plan(
    _ operation: CuDNNOperation, for properties: CuDNNDescriptor
  ) throws(CuDNN.Failure) -> CuDNNPlan {
    let name = name(of: operation)
    // One that cuDNN does not take is made again.
    if let kept = cache.code(named: name),
      let plan = try? CuDNNPlan.load(kept, cuDNN, operation, for: properties)
    {
      return plan
    }
    Log.info("Compiling \(operation.name) with cuDNN \(cuDNN.versionText).")
    let plan = try CuDNNPlan.compile(cuDNN, operation, for: properties)
    let isKept = (try? plan.serialised()).map { cache.keep($0, as: name) } ?? false
    if !isKept {
      Log.warning("What is compiled could not be kept: the next process compiles again.")
    }
    return plan
  }

  /// All that it was made from.
  private func name(of operation: CuDNNOperation) -> String {
    let checksum = CodeCache.checksum(operation.text.utf8)
    let gpu = "sm_\(device.capability.major)\(device.capability.minor)x\(device.multiprocessors)"
    return "\(gpu)-\(CodeCache.hexadecimal(checksum))-cudnn-\(cuDNN.versionText)"
      + "-\(cuDNN.cudaVersion).plan"
  }
}
