import Glibc

/// What the library calls of NVRTC, CUDA's run-time compiler, by prototypes of its own.
struct NVRTC: Sendable {
  typealias Program = UnsafeMutableRawPointer
  typealias Result = Int32
  private typealias Text = UnsafePointer<CChar>

  private let version: @convention(c) (UnsafeMutablePointer<Int32>, UnsafeMutablePointer<Int32>) -> Result
  private let createProgram:
    @convention(c) (
      UnsafeMutablePointer<Program?>, UnsafePointer<CChar>?, UnsafePointer<CChar>?, Int32,
      UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<UnsafePointer<CChar>?>?
    ) -> Result
  private let destroyProgram: @convention(c) (UnsafeMutablePointer<Program?>) -> Result
  private let compileProgram:
    @convention(c) (Program?, Int32, UnsafePointer<UnsafePointer<CChar>?>?) -> Result
  private let logSize: @convention(c) (Program?, UnsafeMutablePointer<Int>) -> Result
  private let log: @convention(c) (Program?, UnsafeMutablePointer<CChar>) -> Result
  private let cubinSize: @convention(c) (Program?, UnsafeMutablePointer<Int>) -> Result
  private let cubin: @convention(c) (Program?, UnsafeMutableRawPointer) -> Result
  private let errorText: @convention(c) (Result) -> UnsafePointer<CChar>?

  /// Text of the source, one of whose files is the program.
  struct Source {
    let program: (name: UnsafePointer<CChar>?, text: UnsafePointer<CChar>?)
    let headerNames: [UnsafePointer<CChar>?]
    let headerTexts: [UnsafePointer<CChar>?]
  }

  /// Why there is no code.
  struct Failure: Error {
    let text: String
  }

  /// MLA_NVRTC_LIBRARY names the file; else those of CUDA 12 and 13, which an installed torch
  /// has loaded or the linker finds.
  static func load() throws(DynamicLibraryError) -> NVRTC {
    if let file = getenv("MLA_NVRTC_LIBRARY") {
      return try NVRTC(DynamicLibrary(String(cString: file)))
    }
    do throws(DynamicLibraryError) {
      return try NVRTC(DynamicLibrary("libnvrtc.so.12"))
    } catch {
      guard let newer = try? DynamicLibrary("libnvrtc.so.13") else { throw error }
      return try NVRTC(newer)
    }
  }

  private init(_ library: DynamicLibrary) throws(DynamicLibraryError) {
    func function<Function>(_ symbol: String) throws(DynamicLibraryError) -> Function {
      try library.function(symbol, as: Function.self)
    }
    version = try function("nvrtcVersion")
    createProgram = try function("nvrtcCreateProgram")
    destroyProgram = try function("nvrtcDestroyProgram")
    compileProgram = try function("nvrtcCompileProgram")
    logSize = try function("nvrtcGetProgramLogSize")
    log = try function("nvrtcGetProgramLog")
    cubinSize = try function("nvrtcGetCUBINSize")
    cubin = try function("nvrtcGetCUBIN")
    errorText = try function("nvrtcGetErrorString")
  }

  /// "12.9"
  var versionText: String {
    var (major, minor): (Int32, Int32) = (0, 0)
    return Arithmetic.callers { version(&major, &minor) } == 0 ? "\(major).\(minor)" : "unknown"
  }

  /// - Returns: a cubin.
  func compile(_ source: Source, options: [StaticString], architecture: String) throws(Failure)
    -> FixedArray<UInt8>
  {
    var program: Program?
    try check("nvrtcCreateProgram") {
      source.headerTexts.withUnsafeBufferPointer { texts in
        source.headerNames.withUnsafeBufferPointer { names in
          createProgram(
            &program, source.program.text, source.program.name, Int32(names.count),
            texts.baseAddress, names.baseAddress)
        }
      }
    }
    defer { Arithmetic.callers { _ = destroyProgram(&program) } }
    let made = program
    let result = architecture.withCString { architecture in
      let all: [UnsafePointer<CChar>?] = options.map(\.cString) + [architecture]
      return Arithmetic.callers { compileProgram(made, Int32(all.count), all) }
    }
    guard result == 0 else { throw Failure(text: "\(text(of: result)): \(log(of: made))") }
    return try cubin(of: made)
  }

  private func cubin(of program: Program?) throws(Failure) -> FixedArray<UInt8> {
    var size = 0
    try check("nvrtcGetCUBINSize") { cubinSize(program, &size) }
    let bytes: FixedArray<UInt8>
    do throws(MLAError) {
      bytes = try FixedArray(repeating: 0, count: size, for: "machine code for a GPU")
    } catch {
      throw Failure(text: error.message)
    }
    try check("nvrtcGetCUBIN") { cubin(program, UnsafeMutableRawPointer(mutating: bytes.pointer)) }
    return bytes
  }

  /// Its first lines: errors come first, and a message has an end.
  private func log(of program: Program?) -> String {
    var size = 0
    guard logSize(program, &size) == 0, size > 1, size < 1 << 20 else { return "" }
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: size) { text in
      guard let start = text.baseAddress, log(program, start) == 0 else { return "" }
      start[min(size - 1, 500)] = 0
      return String(cString: start)
    }
  }

  private func check(_ function: StaticString, _ body: () -> Result) throws(Failure) {
    let result = Arithmetic.callers(body)
    guard result == 0 else { throw Failure(text: "\(function): \(text(of: result))") }
  }

  private func text(of result: Result) -> String {
    errorText(result).map { String(cString: $0) } ?? "NVRTC error \(result)"
  }
}
