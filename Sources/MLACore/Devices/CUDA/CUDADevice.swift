import CMLAPrefill
import MLACUDAKernels

/// A CUDA device that the library can run on: its primary context, in which torch and all
/// that use CUDA's runtime have their memory and streams too, and the kernels for it.
final class CUDADevice: @unchecked Sendable {
  typealias Handle = CUDADriver.Handle

  let id: Int32
  let capability: DeviceCapability
  private let driver: CUDADriver
  private let number: Int32
  private let context: Handle?
  /// Whether kernels may read memory that only the host knows of.
  private let readsHostMemory: Bool
  private var library: Handle?

  init(_ id: Int32, field: String) throws(MLAError) {
    let driver = try CUDADriver.load()
    try driver.check("cuInit") { driver.initialize(0) }
    try Self.checkVersion(driver)
    number = try Self.find(id, field, driver)
    self.id = id
    self.driver = driver
    capability = DeviceCapability(
      try Self.attribute(CUDADriver.DeviceAttribute.capabilityMajor, number, driver),
      try Self.attribute(CUDADriver.DeviceAttribute.capabilityMinor, number, driver))
    readsHostMemory =
      try Self.attribute(CUDADriver.DeviceAttribute.pageableMemoryAccess, number, driver) != 0
    let code = try CUDACode.code(for: capability, field: field)
    let number = number
    var context: Handle?
    try driver.check("cuDevicePrimaryCtxRetain") { driver.retainPrimaryContext(&context, number) }
    self.context = context
    // From here on the object is whole, and what is thrown lets go of the context.
    try loadLibrary(code)
  }

  /// The library stays loaded: whatever was launched may still run.
  deinit {
    Arithmetic.callers { _ = driver.releasePrimaryContext(number) }
  }

  private static func checkVersion(_ driver: CUDADriver) throws(MLAError) {
    var version: Int32 = 0
    try driver.check("cuDriverGetVersion") { driver.driverVersion(&version) }
    guard version >= 12000 else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "NVIDIA's driver is of CUDA \(version / 1000).\(version % 1000 / 10): must be of 12.0 or "
          + "later")
    }
  }

  private static func find(_ id: Int32, _ field: String, _ driver: CUDADriver) throws(MLAError)
    -> Int32
  {
    var count: Int32 = 0
    try driver.check("cuDeviceGetCount") { driver.deviceCount(&count) }
    guard id < count else {
      throw .invalid(field, id, "must be below \(count), the number of CUDA devices")
    }
    var number: Int32 = 0
    try driver.check("cuDeviceGet") { driver.device(&number, id) }
    return number
  }

  private static func attribute(_ attribute: Int32, _ number: Int32, _ driver: CUDADriver)
    throws(MLAError) -> Int32
  {
    var value: Int32 = 0
    try driver.check("cuDeviceGetAttribute") { driver.deviceAttribute(&value, attribute, number) }
    return value
  }
}

// MARK: Kernels

extension CUDADevice {
  /// A kernel, ready to be launched on the device.
  struct Kernel: @unchecked Sendable {
    fileprivate let function: Handle?
    fileprivate let threads: UInt32
    fileprivate let sharedBytes: UInt32
  }

  private func loadLibrary(_ code: CUDACode) throws(MLAError) {
    try inContext { () throws(MLAError) in
      var loaded: Handle?
      try code.withBytes { bytes throws(MLAError) in
        try driver.check("cuLibraryLoadData") {
          driver.loadLibrary(&loaded, bytes, nil, nil, 0, nil, nil, 0)
        }
      }
      library = loaded
    }
  }

  func kernel(_ name: UnsafePointer<CChar>, threads: Int32, sharedBytes: Int32) throws(MLAError)
    -> Kernel
  {
    try inContext { () throws(MLAError) in
      var function: Handle?
      try driver.check("cuLibraryGetKernel") { driver.kernel(&function, library, name) }
      if sharedBytes > 0 {
        try driver.check("cuKernelSetAttribute") {
          driver.setKernelAttribute(CUDADriver.maximumSharedBytes, sharedBytes, function, number)
        }
      }
      return Kernel(
        function: function, threads: UInt32(threads), sharedBytes: UInt32(sharedBytes))
    }
  }

  /// One of those that there are for each type, without shared memory of a launch's size.
  func kernel(_ family: StaticString, _ type: ElementType, threads: Int32) throws(MLAError)
    -> Kernel
  {
    let suffix: StaticString =
      switch type {
      case .bfloat16: "bf16"
      case .float16: "fp16"
      case .float32, .float8E4M3: "fp32"
      }
    var name = Array("\(family)_\(suffix)".utf8CString)
    return try kernel(&name, threads: threads, sharedBytes: 0)
  }

  /// Puts kernels on a stream: what `body` launches.
  ///
  /// - Parameter stream: the caller's; nil: the default stream.
  func onStream(
    _ stream: UnsafeMutableRawPointer?, _ body: (Launcher) throws(MLAError) -> Void
  ) throws(MLAError) {
    try inContext { () throws(MLAError) in try body(Launcher(device: self, stream: stream)) }
  }

  struct Launcher {
    fileprivate let device: CUDADevice
    fileprivate let stream: UnsafeMutableRawPointer?

    /// - Parameter parameter: the kernel's one parameter; copied.
    func launch(_ kernel: Kernel, grid: (x: Int, y: Int), _ parameter: UnsafeMutableRawPointer)
      throws(MLAError)
    {
      let driver = device.driver
      var parameters: UnsafeMutableRawPointer? = parameter
      try driver.check("cuLaunchKernel") {
        driver.launch(
          kernel.function, UInt32(grid.x), UInt32(grid.y), 1, kernel.threads, 1, 1,
          kernel.sharedBytes, stream, &parameters, nil)
      }
    }
  }

  private func inContext<Result>(_ body: () throws(MLAError) -> Result) throws(MLAError) -> Result {
    try driver.check("cuCtxPushCurrent") { driver.pushContext(context) }
    defer {
      var popped: Handle?
      Arithmetic.callers { _ = driver.popContext(&popped) }
    }
    return try body()
  }
}

// MARK: Memory

extension CUDADevice {
  /// A pointer that a kernel is to read or write: a host's would only be found out when the
  /// context is lost.
  ///
  /// - Parameter field: what held the pointer, for messages.
  func requireOwnMemory(_ address: UInt, _ field: @autoclosure () -> String) throws(MLAError) {
    typealias Attribute = CUDADriver.PointerAttribute
    // What the driver knows nothing of is the host's.
    let type = attribute(Attribute.memoryType, of: address)
    let text = "0x" + String(address, radix: 16)
    guard type != nil || readsHostMemory else {
      throw .invalid(field(), text, "must be memory of CUDA device \(id), is not CUDA's")
    }
    guard type == CUDADriver.deviceMemory, attribute(Attribute.isManaged, of: address) != 1
    else { return }
    let owner = attribute(Attribute.deviceOrdinal, of: address)
    guard let owner, owner != id else { return }
    throw .invalid(
      field(), text, "must be memory of CUDA device \(id), is device \(owner)'s")
  }

  /// nil where the driver does not know.
  private func attribute(_ attribute: Int32, of address: UInt) -> Int32? {
    // One of a single byte writes that byte alone.
    var value: Int32 = 0
    let result = Arithmetic.callers { driver.pointerAttribute(&value, attribute, UInt64(address)) }
    return result == 0 ? value : nil
  }
}
