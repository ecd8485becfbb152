import CMLAPrefill
import Glibc
import MLAShims
import Synchronization

/// A line for each call, for people who look at what a host does.
public enum Verbose {
  /// 0: silent; 1: a line for each call; 2: and for what was decided.
  static var level: Int32 {
    let known = state.load(ordering: .relaxed)
    if known >= 0 { return known }
    let first = environmentLevel
    state.store(first, ordering: .relaxed)
    return first
  }

  /// - Parameter callback: NULL: standard error.
  public static func set(
    _ level: Int32, _ callback: mla_log_callback?, context: UnsafeMutableRawPointer?
  ) throws(MLAError) {
    guard (0...2).contains(level) else { throw .invalid("level", level, "must be 0, 1 or 2") }
    try sink.setCallback(callback, context: context)
    state.store(level, ordering: .relaxed)
  }

  static func tell(_ line: () -> String) {
    if sink.send(MLA_LOG_INFO, line) { return }
    // At once: lines of other threads and processes must not get into it.
    var text = line() + "\n"
    text.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }

  /// What was decided, and why.
  static func explain(_ line: () -> String) {
    if level > 1 { tell { "mla_verbose,plan," + line() } }
  }

  private static let sink = MessageSink()
  /// -1: MLA_VERBOSE has not been read.
  private static let state = Atomic<Int32>(-1)

  private static var environmentLevel: Int32 {
    switch getenv("MLA_VERBOSE").map({ String(cString: $0) }) {
    case "1": 1
    case "2": 2
    default: 0
    }
  }
}

/// What is told of a call, fields between commas, which no backend's name has.
struct CallLine {
  let entry: CallEntry
  let call: mla_call
  let status: mla_status
  let nanoseconds: Int

  var text: String {
    let backend = call.backend.map { String(cString: $0) } ?? ""
    let tenths = nanoseconds / 100
    let fields = [
      "mla_verbose", "call", "\(entry.name)", backend.isEmpty ? "-" : backend, device, dtype, shapes,
      "\(CallKernel(number: call.kernel).name)", form, "\(call.threads)", "\(tenths / 10).\(tenths % 10)",
      status == mla_status(MLA_OK) ? "ok" : "status \(status)",
    ]
    return fields.joined(separator: ",")
  }

  private var device: String {
    switch Int(call.device) {
    case MLA_DEVICE_CUDA: "cuda"
    case MLA_DEVICE_ROCM: "rocm"
    default: "cpu"
    }
  }

  private var dtype: String {
    switch ElementType(rawValue: call.dtype) {
    case .float32: "fp32"
    case .float16: "fp16"
    case .bfloat16: "bf16"
    case .float8E4M3: "fp8_e4m3"
    case .float8E8M0: "fp8_e8m0"
    case nil: "-"
    }
  }

  private var shapes: String {
    let all = [
      ("requests", call.requests), ("tokens", call.tokens), ("keys", call.keys),
      ("heads", call.heads), ("qk", call.qk_head_dim), ("v", call.v_head_dim),
    ]
    let known = all.filter { $0.1 > 0 }.map { "\($0.0):\($0.1)" }
    return known.isEmpty ? "-" : known.joined(separator: " ")
  }

  private var form: String {
    let names: [StaticString] =
      entry == .attention ? ["by_head", "by_group"] : ["up_projected", "absorbed", "selected"]
    let taken = names.indices.filter { call.form & (1 << Int32($0)) != 0 }.map { "\(names[$0])" }
    return taken.isEmpty ? "-" : taken.joined(separator: "+")
  }
}
