import Glibc

/// NVIDIA's management library, which knows the host's GPUs without a context on any: whoever
/// forks after asking it can still use CUDA in the child.
enum NVML {
  private typealias Handle = UnsafeMutableRawPointer
  private typealias Result = Int32

  /// Of the GPU that is device 0 of this process; nil where there is none to be found.
  static func capabilityOfFirstGPU() -> DeviceCapability? {
    // No library, no GPU: the rest are its functions.
    guard let library = try? DynamicLibrary("libnvidia-ml.so.1"), let calls = try? Calls(library)
    else { return nil }
    return Arithmetic.callers {
      guard calls.initialize() == 0 else { return nil }
      defer { _ = calls.shutdown() }
      guard let gpu = calls.gpu(VisibleDevices.first) else { return nil }
      var (major, minor): (Int32, Int32) = (0, 0)
      guard calls.capability(gpu, &major, &minor) == 0 else { return nil }
      return DeviceCapability(major, minor)
    }
  }

  private struct Calls {
    let initialize: @convention(c) () -> Result
    let shutdown: @convention(c) () -> Result
    private let count: @convention(c) (UnsafeMutablePointer<UInt32>) -> Result
    private let handleByIndex: @convention(c) (UInt32, UnsafeMutablePointer<Handle?>) -> Result
    private let handleByUUID:
      @convention(c) (UnsafePointer<CChar>, UnsafeMutablePointer<Handle?>) -> Result
    let capability:
      @convention(c) (Handle, UnsafeMutablePointer<Int32>, UnsafeMutablePointer<Int32>) -> Result

    init(_ library: DynamicLibrary) throws(DynamicLibraryError) {
      func function<Function>(_ symbol: String) throws(DynamicLibraryError) -> Function {
        try library.function(symbol, as: Function.self)
      }
      initialize = try function("nvmlInit_v2")
      shutdown = try function("nvmlShutdown")
      count = try function("nvmlDeviceGetCount_v2")
      handleByIndex = try function("nvmlDeviceGetHandleByIndex_v2")
      handleByUUID = try function("nvmlDeviceGetHandleByUUID")
      capability = try function("nvmlDeviceGetCudaComputeCapability")
    }

    func gpu(_ device: VisibleDevices.Device?) -> Handle? {
      var gpu: Handle?
      switch device {
      case nil: return nil
      case .index(let index):
        var known: UInt32 = 0
        guard count(&known) == 0, index < known else { return nil }
        return handleByIndex(index, &gpu) == 0 ? gpu : nil
      case .uuid(let uuid): return handleByUUID(uuid, &gpu) == 0 ? gpu : nil
      }
    }
  }
}

/// CUDA_VISIBLE_DEVICES, of which CUDA takes notice and NVML does not.
enum VisibleDevices {
  enum Device: Equatable {
    case index(UInt32)
    case uuid(String)
  }

  /// Device 0; nil where none is left.
  static var first: Device? { first(of: getenv("CUDA_VISIBLE_DEVICES").map { String(cString: $0) }) }

  static func first(of list: String?) -> Device? {
    guard let list else { return .index(0) }
    guard let entry = list.split(separator: ",", omittingEmptySubsequences: false).first else {
      return nil
    }
    let name = entry.filter { $0 != " " }
    if let index = UInt32(name) { return .index(index) }
    // What neither is a number nor names a GPU ends the list, as "-1" does.
    return name.hasPrefix("GPU-") || name.hasPrefix("MIG-") ? .uuid(name) : nil
  }
}
