import CMLAPrefill
import MLACore

/// What every entry does with its work: run it if there is memory for it, in arithmetic of
/// the library's own, keep the message of a failure for the calling thread, return the
/// status.
@inline(__always)
func entry(_ work: () throws(MLAError) -> Void) -> mla_status {
  Arithmetic.own {
    let call = Shortage.beginCall()
    defer { Shortage.endCall(call) }
    do throws(MLAError) {
      try Shortage.requireReserve()
      try work()
      return mla_status(MLA_OK)
    } catch {
      LastError.set(error.message)
      return error.status
    }
  }
}

/// A literal as C sees it; valid for the life of the process.
func cString(_ literal: StaticString) -> UnsafePointer<CChar> {
  UnsafeRawPointer(literal.utf8Start).assumingMemoryBound(to: CChar.self)
}
