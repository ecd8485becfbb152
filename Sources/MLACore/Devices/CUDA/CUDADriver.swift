import CMLAPrefill

/// What the library calls of CUDA's driver API, by prototypes of its own: handles are
/// pointers, devices and results int32.
struct CUDADriver: Sendable {
  typealias Handle = UnsafeMutableRawPointer
  typealias Result = Int32

  let initialize: @convention(c) (UInt32) -> Result
  let driverVersion: @convention(c) (UnsafeMutablePointer<Int32>) -> Result
  let deviceCount: @convention(c) (UnsafeMutablePointer<Int32>) -> Result
  let device: @convention(c) (UnsafeMutablePointer<Int32>, Int32) -> Result
  let deviceAttribute: @convention(c) (UnsafeMutablePointer<Int32>, Int32, Int32) -> Result
  let retainPrimaryContext: @convention(c) (UnsafeMutablePointer<Handle?>, Int32) -> Result
  let releasePrimaryContext: @convention(c) (Int32) -> Result
  let pushContext: @convention(c) (Handle?) -> Result
  let popContext: @convention(c) (UnsafeMutablePointer<Handle?>) -> Result
  let loadLibrary:
    @convention(c) (
      UnsafeMutablePointer<Handle?>, UnsafeRawPointer, Handle?, Handle?, UInt32, Handle?, Handle?,
      UInt32
    ) -> Result
  let kernel: @convention(c) (UnsafeMutablePointer<Handle?>, Handle?, UnsafePointer<CChar>) -> Result
  let setKernelAttribute: @convention(c) (Int32, Int32, Handle?, Int32) -> Result
  let launch:
    @convention(c) (
      Handle?, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, Handle?,
      UnsafeMutablePointer<UnsafeMutableRawPointer?>, UnsafeMutablePointer<UnsafeMutableRawPointer?>?
    ) -> Result
  let allocate: @convention(c) (UnsafeMutablePointer<UInt64>, Int) -> Result
  let free: @convention(c) (UInt64) -> Result
  let copyToDevice: @convention(c) (UInt64, UnsafeRawPointer, Int) -> Result
  let copyToHost: @convention(c) (UnsafeMutableRawPointer, UInt64, Int) -> Result
  let allocateOnStream: @convention(c) (UnsafeMutablePointer<UInt64>, Int, Handle?) -> Result
  let freeOnStream: @convention(c) (UInt64, Handle?) -> Result
  let fillWords: @convention(c) (UInt64, UInt32, Int, Handle?) -> Result
  let synchronizeStream: @convention(c) (Handle?) -> Result
  let streamIsCapturing: @convention(c) (Handle?, UnsafeMutablePointer<Int32>) -> Result
  private let exchangeCaptureMode: @convention(c) (UnsafeMutablePointer<Int32>) -> Result
  let pointerAttribute: @convention(c) (UnsafeMutableRawPointer, Int32, UInt64) -> Result
  private let errorName: @convention(c) (Result, UnsafeMutablePointer<UnsafePointer<CChar>?>) -> Result
  private let errorText: @convention(c) (Result, UnsafeMutablePointer<UnsafePointer<CChar>?>) -> Result

  /// - Throws: where the driver is not there, or is older than CUDA 12.
  static func load() throws(MLAError) -> CUDADriver {
    do throws(DynamicLibraryError) {
      return try CUDADriver(DynamicLibrary("libcuda.so.1"))
    } catch {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "CUDA tensors need NVIDIA's driver of CUDA 12.0 or later: \(error.text)")
    }
  }

  private init(_ library: DynamicLibrary) throws(DynamicLibraryError) {
    func function<Function>(_ symbol: String) throws(DynamicLibraryError) -> Function {
      try library.function(symbol, as: Function.self)
    }
    initialize = try function("cuInit")
    driverVersion = try function("cuDriverGetVersion")
    deviceCount = try function("cuDeviceGetCount")
    device = try function("cuDeviceGet")
    deviceAttribute = try function("cuDeviceGetAttribute")
    retainPrimaryContext = try function("cuDevicePrimaryCtxRetain")
    releasePrimaryContext = try function("cuDevicePrimaryCtxRelease_v2")
    pushContext = try function("cuCtxPushCurrent_v2")
    popContext = try function("cuCtxPopCurrent_v2")
    loadLibrary = try function("cuLibraryLoadData")
    kernel = try function("cuLibraryGetKernel")
    setKernelAttribute = try function("cuKernelSetAttribute")
    launch = try function("cuLaunchKernel")
    allocate = try function("cuMemAlloc_v2")
    free = try function("cuMemFree_v2")
    copyToDevice = try function("cuMemcpyHtoD_v2")
    copyToHost = try function("cuMemcpyDtoH_v2")
    allocateOnStream = try function("cuMemAllocAsync")
    freeOnStream = try function("cuMemFreeAsync")
    fillWords = try function("cuMemsetD32Async")
    synchronizeStream = try function("cuStreamSynchronize")
    streamIsCapturing = try function("cuStreamIsCapturing")
    exchangeCaptureMode = try function("cuThreadExchangeStreamCaptureMode")
    pointerAttribute = try function("cuPointerGetAttribute")
    errorName = try function("cuGetErrorName")
    errorText = try function("cuGetErrorString")
  }

  /// Calls the driver as its caller would: it is foreign code.
  func check(_ function: StaticString, _ body: () -> Result) throws(MLAError) {
    let result = Arithmetic.callers(body)
    guard result == 0 else { throw error(result, of: function) }
  }

  /// Runs `body` in a context; the thread's own is in place again afterwards.
  func inContext<Value>(_ context: Handle?, _ body: () throws(MLAError) -> Value) throws(MLAError)
    -> Value
  {
    try check("cuCtxPushCurrent") { pushContext(context) }
    defer {
      var popped: Handle?
      Arithmetic.callers { _ = popContext(&popped) }
    }
    return try body()
  }

  /// Runs `body`, whose work is no part of it, although the thread may be capturing a graph.
  func besideCaptures<Value>(_ body: () throws(MLAError) -> Value) throws(MLAError) -> Value {
    var mode = Self.relaxedCapture
    try check("cuThreadExchangeStreamCaptureMode") { exchangeCaptureMode(&mode) }
    defer { Arithmetic.callers { _ = exchangeCaptureMode(&mode) } }
    return try body()
  }

  /// Of a device's primary context, one hold.
  func release(_ device: Int32) { Arithmetic.callers { _ = releasePrimaryContext(device) } }

  @inline(never)
  private func error(_ result: Result, of function: StaticString) -> MLAError {
    CUDAError(result, name: text(result, errorName), text: text(result, errorText))
      .error(of: function)
  }

  private func text(
    _ result: Result,
    _ lookUp: @convention(c) (Result, UnsafeMutablePointer<UnsafePointer<CChar>?>) -> Result
  ) -> String? {
    var text: UnsafePointer<CChar>?
    guard lookUp(result, &text) == 0 else { return nil }
    return text.map { String(cString: $0) }
  }
}

extension CUDADriver {
  /// CU_DEVICE_ATTRIBUTE_*
  enum DeviceAttribute {
    static let multiprocessors: Int32 = 16
    static let capabilityMajor: Int32 = 75
    static let capabilityMinor: Int32 = 76
    static let pageableMemoryAccess: Int32 = 88
  }

  /// CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
  static let maximumSharedBytes: Int32 = 8

  /// CU_POINTER_ATTRIBUTE_*
  enum PointerAttribute {
    static let memoryType: Int32 = 2
    static let isManaged: Int32 = 8
    static let deviceOrdinal: Int32 = 9
  }

  /// CU_STREAM_CAPTURE_STATUS_NONE
  static let notCapturing: Int32 = 0

  /// CU_STREAM_CAPTURE_MODE_RELAXED
  private static let relaxedCapture: Int32 = 2

  /// CU_MEMORYTYPE_DEVICE
  static let deviceMemory: Int32 = 2
}
