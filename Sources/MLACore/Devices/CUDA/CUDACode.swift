import CMLAPrefill
import MLACUDAKernels

/// Machine code of all kernels for one kind of GPU.
struct CUDACode {
  private enum Source {
    /// Of the library's own.
    case embedded(mla_cuda_image)
    case compiled(FixedArray<UInt8>)
  }

  private let source: Source

  /// What a GPU of that capability can load: a build's own code, else what the compiler makes
  /// of the source that every build has.
  ///
  /// - Parameter field: what named the device, for messages.
  static func code(for capability: DeviceCapability, field: String) throws(MLAError) -> CUDACode {
    guard capability.major >= 8 else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "\(field): a GPU of capability \(capability.major).\(capability.minor): the kernels need "
          + "8.0 or later")
    }
    if let image = image(for: capability) { return CUDACode(source: .embedded(image)) }
    return CUDACode(source: .compiled(try CUDACompiler.code(for: capability)))
  }

  /// Whether there is code for it, or what makes it. Compiles nothing.
  static func canBeHad(for capability: DeviceCapability) -> Bool {
    capability.major >= 8 && (image(for: capability) != nil || CUDACompiler.isPresent)
  }

  /// Code runs on GPUs of its major capability, from its minor one on.
  private static func image(for capability: DeviceCapability) -> mla_cuda_image? {
    var count: Int32 = 0
    let first = mla_cuda_images(&count)
    return UnsafeBufferPointer(start: first, count: Int(count)).last {
      $0.architecture / 10 == capability.major && $0.architecture % 10 <= capability.minor
    }
  }

  /// - Returns: the driver's handle, of a library that stays loaded.
  func load(_ driver: CUDADriver, _ context: CUDADriver.Handle?) throws(MLAError)
    -> CUDADriver.Handle?
  {
    let bytes =
      switch source {
      case .embedded(let image): UnsafeRawPointer(image.bytes)
      case .compiled(let bytes): UnsafeRawPointer(bytes.pointer)
      }
    guard let bytes else { return nil }
    return try driver.inContext(context) { () throws(MLAError) in
      var library: CUDADriver.Handle?
      try driver.besideCaptures { () throws(MLAError) in
        try driver.check("cuLibraryLoadData") {
          driver.loadLibrary(&library, bytes, nil, nil, 0, nil, nil, 0)
        }
      }
      return library
    }
  }
}
