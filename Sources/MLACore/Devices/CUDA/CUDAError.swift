import CMLAPrefill

/// A CUresult other than CUDA_SUCCESS.
struct CUDAError {
  let result: Int32
  let name: String
  let text: String

  /// CUDA_ERROR_*
  enum Code {
    static let invalidValue: Int32 = 1
    static let outOfMemory: Int32 = 2
    static let notInitialized: Int32 = 3
    static let noDevice: Int32 = 100
    static let noBinaryForGPU: Int32 = 209
    static let systemDriverMismatch: Int32 = 803
    static let compatibilityNotSupported: Int32 = 804
  }

  init(_ result: Int32, name: String?, text: String?) {
    self.result = result
    self.name = name ?? "CUDA error \(result)"
    self.text = text ?? "unknown to the driver"
  }

  func error(of function: StaticString) -> MLAError {
    let what = "\(function): \(name), \(text)"
    switch result {
    case Code.outOfMemory: return MLAError(MLA_ERROR_OUT_OF_MEMORY, what)
    case Code.notInitialized:
      return MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        what + "; a process forked from one that uses CUDA cannot use it")
    case Code.noDevice, Code.noBinaryForGPU, Code.systemDriverMismatch,
      Code.compatibilityNotSupported:
      return MLAError(MLA_ERROR_UNSUPPORTED_HARDWARE, what)
    default: return MLAError(MLA_ERROR_INTERNAL, what)
    }
  }
}
