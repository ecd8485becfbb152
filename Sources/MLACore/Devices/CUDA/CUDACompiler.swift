import CMLAPrefill
import MLACUDAKernels

/// Compiles the kernels where the build has no machine code for a GPU: once for each kind of
/// GPU, if what it makes can be kept.
enum CUDACompiler {
  /// For GPUs of exactly that capability.
  static func code(for capability: DeviceCapability) throws(MLAError) -> FixedArray<UInt8> {
    let gpu = "sm_\(capability.major)\(capability.minor)"
    let compiler: NVRTC
    do throws(DynamicLibraryError) {
      compiler = try NVRTC.load()
    } catch {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "this build has no kernels for \(gpu) and compiles them with NVRTC, which is not there: "
          + "\(error.text); install CUDA's run-time compiler (pip install nvidia-cuda-nvrtc-cu12) "
          + "or set MLA_NVRTC_LIBRARY to its file")
    }
    let cache = CodeCache()
    let name = "\(gpu)-\(CodeCache.hexadecimal(sourceChecksum))-\(compiler.versionText).cubin"
    if let code = cache.code(named: name) { return code }
    return try compile(compiler, gpu, cache, name)
  }

  /// Whether `code` would get as far as compiling.
  static var isPresent: Bool { (try? NVRTC.load()) != nil }

  private static func compile(_ compiler: NVRTC, _ gpu: String, _ cache: CodeCache, _ name: String)
    throws(MLAError) -> FixedArray<UInt8>
  {
    Log.info("Compiling MLA prefill kernels for \(gpu) with NVRTC \(compiler.versionText).")
    do throws(NVRTC.Failure) {
      let code = try compiler.compile(
        source, options: ["--std=c++17"], architecture: "--gpu-architecture=\(gpu)")
      if !cache.keep(code, as: name) {
        Log.warning("The compiled kernels could not be kept: the next process compiles again.")
      }
      return code
    } catch {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "NVRTC \(compiler.versionText) could not compile the kernels for \(gpu): \(error.text)")
    }
  }

  private static var files: UnsafeBufferPointer<mla_cuda_source> {
    var count: Int32 = 0
    let first = mla_cuda_sources(&count)
    return UnsafeBufferPointer(start: first, count: Int(count))
  }

  private static var source: NVRTC.Source {
    NVRTC.Source(
      program: (files[0].name, files[0].text), headerNames: files.dropFirst().map(\.name),
      headerTexts: files.dropFirst().map(\.text))
  }

  private static var sourceChecksum: UInt64 {
    files.reduce(CodeCache.checksum([])) { sum, file in
      CodeCache.checksum(String(cString: file.text).utf8, from: sum)
    }
  }
}
