import CMLAPrefill
import Foundation

/// The built libmlaprefill.so, loaded as an engine would load it: what is
/// measured is what users get.
public final class MLALibrary: @unchecked Sendable {
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  public let path: String
  private let handle: UnsafeMutableRawPointer

  let selectBackend:
    @convention(c) (
      UnsafePointer<mla_selector_config>?, UnsafeMutablePointer<UnsafePointer<CChar>?>?
    ) -> mla_status
  let createBackend:
    @convention(c) (
      UnsafePointer<CChar>?, UnsafePointer<mla_backend_config>?,
      UnsafeMutablePointer<OpaquePointer?>?
    ) -> mla_status
  let destroyBackend: @convention(c) (OpaquePointer?) -> Void
  let prepareMetadata:
    @convention(c) (OpaquePointer?, UnsafePointer<mla_prefill_metadata>?) -> mla_status
  let runNewTokens:
    @convention(c) (OpaquePointer?, UnsafePointer<mla_new_tokens_args>?) -> mla_status
  let runContextChunk:
    @convention(c) (OpaquePointer?, UnsafePointer<mla_context_chunk_args>?) -> mla_status
  let mergeAttnStates: @convention(c) (UnsafePointer<mla_merge_args>?) -> mla_status
  let createLayer:
    @convention(c) (UnsafePointer<mla_layer_config>?, UnsafeMutablePointer<OpaquePointer?>?) ->
      mla_status
  let destroyLayer: @convention(c) (OpaquePointer?) -> Void
  let forwardLayer:
    @convention(c) (OpaquePointer?, UnsafePointer<mla_layer_forward_args>?) -> mla_status
  let selectKeys: @convention(c) (UnsafePointer<mla_index_select_args>?) -> mla_status
  private let getCPUInfo: @convention(c) (UnsafeMutablePointer<mla_cpu_info>?) -> mla_status
  private let getCPUSummary: @convention(c) () -> UnsafePointer<CChar>?
  private let getVersion: @convention(c) () -> UnsafePointer<CChar>?
  private let getLastError: @convention(c) () -> UnsafePointer<CChar>?
  private let setThreads: @convention(c) (Int32) -> mla_status
  private let getThreads: @convention(c) () -> Int32

  /// - Parameter path: nil: the library next to this executable.
  public init(path: String? = nil) throws {
    let path = path ?? Self.besideExecutable
    guard let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL) else {
      throw Failure(description: "cannot load \(path): \(String(cString: dlerror()))")
    }
    func symbol<Function>(_ name: String) throws -> Function {
      guard let address = dlsym(handle, name) else {
        throw Failure(description: "\(path) has no \(name)")
      }
      return unsafeBitCast(address, to: Function.self)
    }
    self.path = path
    self.handle = handle
    selectBackend = try symbol("mla_select_backend")
    createBackend = try symbol("mla_backend_create")
    destroyBackend = try symbol("mla_backend_destroy")
    prepareMetadata = try symbol("mla_prepare_metadata")
    runNewTokens = try symbol("mla_run_prefill_new_tokens")
    runContextChunk = try symbol("mla_run_prefill_context_chunk")
    mergeAttnStates = try symbol("mla_merge_attn_states")
    createLayer = try symbol("mla_layer_create")
    destroyLayer = try symbol("mla_layer_destroy")
    forwardLayer = try symbol("mla_layer_forward")
    selectKeys = try symbol("mla_index_select")
    getCPUInfo = try symbol("mla_get_cpu_info")
    getCPUSummary = try symbol("mla_cpu_summary")
    getVersion = try symbol("mla_version")
    getLastError = try symbol("mla_last_error_message")
    setThreads = try symbol("mla_set_num_threads")
    getThreads = try symbol("mla_get_num_threads")
  }

  public var version: String { String(cString: getVersion()!) }
  public var cpuSummary: String { String(cString: getCPUSummary()!) }

  public func cpuInfo() throws -> mla_cpu_info {
    var info = mla_cpu_info()
    info.struct_size = structSize(info)
    try check(getCPUInfo(&info), "mla_get_cpu_info")
    return info
  }

  public var numThreads: Int { Int(getThreads()) }

  public func setNumThreads(_ count: Int) throws {
    try check(setThreads(Int32(count)), "mla_set_num_threads")
  }

  /// Throws the library's own message for a status that is not MLA_OK.
  func check(_ status: mla_status, _ call: String) throws {
    guard status != MLA_OK else { return }
    throw Failure(description: "\(call): status \(status), \(String(cString: getLastError()!))")
  }

  private static var besideExecutable: String {
    let executable = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return (executable as NSString).deletingLastPathComponent + "/libmlaprefill.so"
  }
}

/// What a struct's _INIT macro sets, which Swift cannot import.
func structSize<Struct>(_: Struct) -> UInt32 { UInt32(MemoryLayout<Struct>.size) }
