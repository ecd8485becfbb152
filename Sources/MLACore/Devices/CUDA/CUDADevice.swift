import CMLAPrefill
import MLACUDAKernels

/// A CUDA device that the library can run on: its primary context, in which torch and all
/// that use CUDA's runtime have their memory and streams too, and the kernels for it.
final class CUDADevice: @unchecked Sendable {
  typealias Handle = CUDADriver.Handle

  let id: Int32
  let capability: DeviceCapability
  let multiprocessors: Int32
  let driver: CUDADriver
  private let number: Int32
  private let context: Handle?
  /// Whether kernels may read memory that only the host knows of.
  private let readsHostMemory: Bool
  private let library: Handle?

  private init(
    _ id: Int32, _ number: Int32, _ capability: DeviceCapability, multiprocessors: Int32,
    _ driver: CUDADriver, context: Handle?, library: Handle?, readsHostMemory: Bool
  ) {
    (self.id, self.number, self.capability, self.driver) = (id, number, capability, driver)
    self.multiprocessors = multiprocessors
    (self.context, self.library, self.readsHostMemory) = (context, library, readsHostMemory)
  }

  static func open(_ id: Int32, field: String) throws(MLAError) -> CUDADevice {
    let driver = try CUDADriver.load()
    try driver.check("cuInit") { driver.initialize(0) }
    try checkVersion(driver)
    let number = try find(id, field, driver)
    typealias Attribute = CUDADriver.DeviceAttribute
    let capability = DeviceCapability(
      try attribute(Attribute.capabilityMajor, number, driver),
      try attribute(Attribute.capabilityMinor, number, driver))
    let multiprocessors = try attribute(Attribute.multiprocessors, number, driver)
    let readsHostMemory = try attribute(Attribute.pageableMemoryAccess, number, driver) != 0
    let code = try CUDACode.code(for: capability, field: field)
    var context: Handle?
    try driver.check("cuDevicePrimaryCtxRetain") { driver.retainPrimaryContext(&context, number) }
    do throws(MLAError) {
      let library = try code.load(driver, context)
      return CUDADevice(
        id, number, capability, multiprocessors: multiprocessors, driver, context: context,
        library: library, readsHostMemory: readsHostMemory)
    } catch {
      driver.release(number)
      throw error
    }
  }

  /// One that nobody has used. All others stay: what was launched may still run, and a forked
  /// child, which has them in its memory, must leave the driver alone.
  func close() { driver.release(number) }

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

  /// One of those that there are for each type.
  func kernel(
    _ family: StaticString, _ type: ElementType, threads: Int32, sharedBytes: Int32 = 0
  ) throws(MLAError) -> Kernel {
    let suffix: StaticString =
      switch type {
      case .bfloat16: "bf16"
      case .float16: "fp16"
      // What comes in is of a type that attention takes.
      case .float32, .float8E4M3, .float8E8M0: "fp32"
      }
    var name = Array("\(family)_\(suffix)".utf8CString)
    return try kernel(&name, threads: threads, sharedBytes: sharedBytes)
  }

  /// A launch has heads in its second dimension.
  ///
  /// - Parameter field: what says how many, for messages.
  static func require(heads: Int, _ field: String) throws(MLAError) {
    guard heads <= 65535 else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "\(field) = \(heads): must be at most 65535 on a CUDA device")
    }
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
    let device: CUDADevice
    let stream: UnsafeMutableRawPointer?

    /// Whether what is put on the stream is captured into a graph.
    func isCapturing() throws(MLAError) -> Bool {
      var status: Int32 = 0
      try device.driver.check("cuStreamIsCapturing") {
        device.driver.streamIsCapturing(stream, &status)
      }
      return status != CUDADriver.notCapturing
    }

    /// Runs `body`, which loads code or takes memory beside what it may put on the stream.
    func besideCaptures<Value>(_ body: () throws(MLAError) -> Value) throws(MLAError) -> Value {
      try device.driver.besideCaptures(body)
    }

    /// - Parameter parameter: the kernel's one parameter; copied.
    func launch<Parameter: BitwiseCopyable>(
      _ kernel: Kernel, grid: (x: Int, y: Int), _ parameter: inout Parameter
    ) throws(MLAError) {
      let driver = device.driver
      try withUnsafeMutablePointer(to: &parameter) { parameter throws(MLAError) in
        var parameters: UnsafeMutableRawPointer? = UnsafeMutableRawPointer(parameter)
        try driver.check("cuLaunchKernel") {
          driver.launch(
            kernel.function, UInt32(grid.x), UInt32(grid.y), 1, kernel.threads, 1, 1,
            kernel.sharedBytes, stream, &parameters, nil)
        }
      }
    }
  }

  func inContext<Result>(_ body: () throws(MLAError) -> Result) throws(MLAError) -> Result {
    try driver.inContext(context, body)
  }
}

// MARK: Memory

extension CUDADevice.Launcher {
  /// A pointer that a kernel is to read or write: a host's would only be found out when the
  /// context is lost.
  ///
  /// - Parameter field: what held the pointer, for messages.
  func requireOwnMemory(_ address: UInt, _ field: @autoclosure () -> String) throws(MLAError) {
    typealias Attribute = CUDADriver.PointerAttribute
    let type = try attribute(Attribute.memoryType, of: address)
    guard type != nil || device.readsHostMemory else {
      throw refusal(of: address, field(), "is not CUDA's")
    }
    guard type == CUDADriver.deviceMemory,
      let owner = try attribute(Attribute.deviceOrdinal, of: address), owner != device.id,
      try attribute(Attribute.isManaged, of: address) != 1
    else { return }
    throw refusal(of: address, field(), "is device \(owner)'s")
  }

  @inline(never)
  private func refusal(of address: UInt, _ field: String, _ what: String) -> MLAError {
    .invalid(
      field, "0x" + String(address, radix: 16),
      "must be memory of CUDA device \(device.id), \(what)")
  }

  /// nil where the driver knows nothing of the address, which is the host's then.
  private func attribute(_ attribute: Int32, of address: UInt) throws(MLAError) -> Int32? {
    let driver = device.driver
    // One of a single byte writes that byte alone.
    var value: Int32 = 0
    var isUnknown = false
    try driver.check("cuPointerGetAttribute") {
      let result = driver.pointerAttribute(&value, attribute, UInt64(address))
      isUnknown = result == CUDAError.Code.invalidValue
      return isUnknown ? 0 : result
    }
    return isUnknown ? nil : value
  }
}
