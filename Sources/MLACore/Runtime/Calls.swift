import CMLAPrefill
import MLAKernelABI
import MLAShims

/// The public entries whose calls are counted and told of.
public enum CallEntry: Int32, CaseIterable, Sendable {
  case runPrefillNewTokens
  case runPrefillContextChunk
  case mergeAttnStates
  case layerForward
  case concatAndCache
  case gatherCache
  case attention
  case indexStore
  case indexSelect

  /// As the header has it.
  var name: StaticString {
    switch self {
    case .runPrefillNewTokens: "mla_run_prefill_new_tokens"
    case .runPrefillContextChunk: "mla_run_prefill_context_chunk"
    case .mergeAttnStates: "mla_merge_attn_states"
    case .layerForward: "mla_layer_forward"
    case .concatAndCache: "mla_concat_and_cache_mla"
    case .gatherCache: "mla_gather_and_maybe_dequant_cache"
    case .attention: "mla_attention"
    case .indexStore: "mla_index_store"
    case .indexSelect: "mla_index_select"
    }
  }
}

/// What carries out a call.
enum CallKernel: Equatable {
  /// Nothing: it was refused before, or there was nothing to do.
  case none
  case cpu(KernelFamily)
  /// The library's own on a CUDA device.
  case cuda
  case cuDNN
  case registered

  var number: Int32 {
    switch self {
    case .none: 0
    case .cpu(let family): family.rawValue
    case .cuda: 8
    case .cuDNN: 9
    case .registered: 10
    }
  }

  static func cpu(_ kernel: mla_attention_kernel) -> CallKernel { CallKernel(number: kernel.family) }

  init(number: Int32) {
    switch number {
    case 8: self = .cuda
    case 9: self = .cuDNN
    case 10: self = .registered
    default: self = KernelFamily(rawValue: number).map { .cpu($0) } ?? .none
    }
  }

  var name: StaticString {
    switch self {
    case .none: "none"
    case .cpu(let family): family.staticName
    case .cuda: "cuda"
    case .cuDNN: "cudnn"
    case .registered: "registered"
    }
  }
}

/// A call of a public entry, from its beginning to its end.
public struct CallRecord {
  private let entry: CallEntry
  /// The call that this one came from within, a registered backend's say.
  private let outer: mla_call
  private let began: Int

  public init(_ entry: CallEntry) {
    self.entry = entry
    outer = Self.current.pointee
    Self.current.pointee = mla_call()
    began = MonotonicClock.nanoseconds
  }

  /// Counts it, and tells of it where that is wanted.
  public func end(_ status: mla_status) {
    let call = Self.current.pointee
    let duration = MonotonicClock.nanoseconds - began
    let isFailure = status != mla_status(MLA_OK)
    mla_shim_count_call(
      entry.rawValue, call.kernel,
      mla_call_counts(
        calls: 1, failures: isFailure ? 1 : 0, tokens: isFailure ? 0 : UInt64(clamping: call.tokens),
        nanoseconds: UInt64(clamping: duration)))
    if Verbose.level > 0 {
      Verbose.tell { CallLine(entry: entry, call: call, status: status, nanoseconds: duration).text }
    }
    Self.current.pointee = outer
  }

  /// Says of the calling thread's call what is known by now.
  static func note(_ body: (inout mla_call) -> Void) { body(&current.pointee) }

  /// Likewise, what carries it out.
  static func note(_ kernel: CallKernel, threads: Int = 0) {
    current.pointee.kernel = kernel.number
    current.pointee.threads = Int32(clamping: threads)
  }

  private static var current: UnsafeMutablePointer<mla_call> {
    withUnsafeMutablePointer(to: &mla_shim_thread().pointee.call) { $0 }
  }
}
