/// What the library could do on this host's GPU, asked without touching it.
public enum CUDAProvider {
  /// The capability of the process's first CUDA device where the library has code for it or
  /// can compile it; nil else.
  public static var capability: DeviceCapability? {
    // Once: a host's GPUs stay, and a selector asks often. Not under the lock: it is NVIDIA's
    // code that answers.
    if let found = found.withLock({ $0 }) { return found }
    let capability = NVML.capabilityOfFirstGPU()
    let served = capability.flatMap { CUDACode.canBeHad(for: $0) ? $0 : nil }
    found.withLock { $0 = .some(served) }
    return served
  }

  private static let found = Guarded<DeviceCapability??>(nil)
}
