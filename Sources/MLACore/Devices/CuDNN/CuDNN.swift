import Glibc

/// What the library calls of cuDNN's graph API, by prototypes of its own.
struct CuDNN: Sendable {
  typealias Handle = UnsafeMutableRawPointer
  typealias DescriptorHandle = UnsafeMutableRawPointer
  typealias Status = Int32

  /// Why cuDNN does not serve.
  struct Failure: Error {
    let text: String
  }

  /// Major * 10000 + minor * 100 + patch, and the CUDA that it was built for, major * 1000.
  let version: Int
  let cudaVersion: Int

  private let lastError: @convention(c) (UnsafeMutablePointer<CChar>, Int) -> Void
  let createHandle: @convention(c) (UnsafeMutablePointer<Handle?>) -> Status
  let setStream: @convention(c) (Handle, UnsafeMutableRawPointer?) -> Status
  let createDescriptor:
    @convention(c) (Int32, UnsafeMutablePointer<DescriptorHandle?>) -> Status
  let destroyDescriptor: @convention(c) (DescriptorHandle) -> Status
  let setAttribute:
    @convention(c) (DescriptorHandle, Int32, Int32, Int64, UnsafeRawPointer) -> Status
  let getAttribute:
    @convention(c) (
      DescriptorHandle, Int32, Int32, Int64, UnsafeMutablePointer<Int64>, UnsafeMutableRawPointer?
    ) -> Status
  let finalize: @convention(c) (DescriptorHandle) -> Status
  let execute: @convention(c) (Handle, DescriptorHandle, DescriptorHandle) -> Status

  /// Versions whose plans are known to build: offsets with multipliers came with 9.24.
  private static let served = 92400..<92900
  /// It takes cuBLASLt for granted, and ends the process where it is not.
  private static let needsNoCuBLASLt = 92500...

  init(_ library: DynamicLibrary) throws(Failure) {
    do throws(DynamicLibraryError) {
      func function<Function>(_ symbol: String) throws(DynamicLibraryError) -> Function {
        try library.function(symbol, as: Function.self)
      }
      let getVersion: @convention(c) () -> Int = try function("cudnnGetVersion")
      let getCUDAVersion: @convention(c) () -> Int = try function("cudnnGetCudartVersion")
      version = Arithmetic.callers(getVersion)
      cudaVersion = Arithmetic.callers(getCUDAVersion)
      lastError = try function("cudnnGetLastErrorString")
      createHandle = try function("cudnnCreate")
      setStream = try function("cudnnSetStream")
      createDescriptor = try function("cudnnBackendCreateDescriptor")
      destroyDescriptor = try function("cudnnBackendDestroyDescriptor")
      setAttribute = try function("cudnnBackendSetAttribute")
      getAttribute = try function("cudnnBackendGetAttribute")
      finalize = try function("cudnnBackendFinalize")
      execute = try function("cudnnBackendExecute")
    } catch {
      throw Failure(text: error.text)
    }
    try checkVersion()
  }

  private func checkVersion() throws(Failure) {
    guard Self.served.contains(version) else {
      throw Failure(
        text: "cuDNN \(versionText): must be of \(Self.text(Self.served.lowerBound)) or later and "
          + "before \(Self.text(Self.served.upperBound))")
    }
    if Self.needsNoCuBLASLt.contains(version) { return }
    let name = "libcublasLt.so.\(cudaVersion / 1000)"
    do throws(DynamicLibraryError) {
      // Where it is loaded, cuDNN finds it.
      _ = try DynamicLibrary(name)
    } catch {
      throw Failure(text: "cuDNN \(versionText) needs \(name): \(error.text)")
    }
  }

  /// "9.25.1"
  var versionText: String { Self.text(version) }

  private static func text(_ version: Int) -> String {
    "\(version / 10000).\(version / 100 % 100).\(version % 100)"
  }

  /// Calls cuDNN as its caller would: it is foreign code.
  func check(_ function: StaticString, _ body: () -> Status) throws(Failure) {
    let status = Arithmetic.callers(body)
    guard status == 0 else { throw failure(status, of: function) }
  }

  /// What cannot be had without memory cuDNN does not serve.
  static func allocating<Value>(_ body: () throws(MLAError) -> Value) throws(Failure) -> Value {
    do throws(MLAError) { return try body() } catch { throw Failure(text: error.message) }
  }

  @inline(never)
  private func failure(_ status: Status, of function: StaticString) -> Failure {
    let text = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { text in
      guard let start = text.baseAddress else { return "" }
      start[0] = 0
      Arithmetic.callers { lastError(start, text.count) }
      start[text.count - 1] = 0
      return String(cString: start)
    }
    return Failure(text: "\(function): status \(status), \(text)")
  }
}
