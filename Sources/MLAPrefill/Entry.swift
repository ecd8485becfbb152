import CMLAPrefill
import MLACore

/// What every entry does with its work: run it if there is memory for it, in arithmetic of
/// the library's own, keep the message of a failure for the calling thread, return the
/// status.
@inline(__always)
func entry(_ work: () throws(MLAError) -> Void) -> mla_status {
  inLibrary { status(of: work) }
}

/// The same of an entry whose calls are counted and told of.
@inline(__always)
func entry(_ counted: CallEntry, _ work: () throws(MLAError) -> Void) -> mla_status {
  inLibrary {
    let record = CallRecord(counted)
    let status = status(of: work)
    record.end(status)
    return status
  }
}

@inline(__always)
private func inLibrary(_ work: () -> mla_status) -> mla_status {
  Arithmetic.own {
    let call = Shortage.beginCall()
    defer { Shortage.endCall(call) }
    return work()
  }
}

@inline(__always)
private func status(of work: () throws(MLAError) -> Void) -> mla_status {
  do throws(MLAError) {
    try Shortage.requireReserve()
    try work()
    return mla_status(MLA_OK)
  } catch {
    LastError.set(error.message)
    return error.status
  }
}
