import CMLAPrefill
import MLAShims

/// Memory that the Swift runtime wanted and the system refused: it came from the
/// reserve (MLAShims/memory.c).
///
/// A call that was short goes on, and succeeds if what it gives lies in its caller's
/// memory. What it would leave behind, an object, a batch, a registration, it gives up:
/// the reserve is there for as long as a call takes.
public enum Shortage {
  /// What an outer call of the same thread has seen, see `endCall`.
  public struct Call { fileprivate let outer: Int32 }

  /// A call of the ABI begins, perhaps within another: a registered backend may call
  /// the library.
  public static func beginCall() -> Call { Call(outer: mla_shim_set_short(0)) }

  public static func endCall(_ call: Call) { _ = mla_shim_set_short(call.outer) }

  /// - Throws: where the reserve might not last for a call. Takes no memory.
  public static func requireReserve() throws(MLAError) {
    if mla_shim_reserve_is_low() != 0 { throw error }
  }

  /// Whether the thread's call was short so far.
  static var isPresent: Bool { mla_shim_is_short() != 0 }

  /// Before anything is kept or handed out.
  public static func check() throws(MLAError) {
    if isPresent { throw error }
  }

  private static var error: MLAError {
    MLAError(MLA_ERROR_OUT_OF_MEMORY, "memory of a few bytes could not be allocated")
  }
}
