import CMLAPrefill
import Glibc

extension RegisteredBackend {
  /// Why it does not serve a configuration, in its own words. Runs foreign
  /// code: not to be called under a lock.
  ///
  /// - Throws: where it had no memory to find out.
  func invalidReasons(_ config: SelectorConfig) throws(MLAError) -> [String] {
    guard let validate = vtable.validate else { return [] }
    // Any other failure of its own is a reason, not the caller's error.
    var reasons: [String] = []
    let (said, status) = LastError.said {
      config.withCStruct { config in
        withUnsafeMutablePointer(to: &reasons) { sink in
          validate(vtable.context, config, appendReason, sink)
        }
      }
    }
    if status == MLA_ERROR_OUT_OF_MEMORY {
      throw MLAError(
        MLA_ERROR_OUT_OF_MEMORY, said.isEmpty ? "validate of a backend had no memory" : said)
    }
    if status != MLA_OK {
      reasons.append("validate failed: " + (said.isEmpty ? "status \(status)" : said))
    }
    return reasons
  }
}

private func appendReason(_ sink: UnsafeMutableRawPointer?, _ reason: UnsafePointer<CChar>?) {
  Arithmetic.own {
    guard let reasons = sink?.assumingMemoryBound(to: [String].self),
      reasons.pointee.count < maximumReasons
    else { return }
    let text = reason.map { reason in
      let length = strnlen(reason, maximumReasonBytes)
      return String(decoding: UnsafeRawBufferPointer(start: reason, count: length), as: UTF8.self)
    }
    reasons.pointee.append(text ?? "no reason given")
  }
}

// What somebody else's code says, and the texts made of it, must fit into the reserve.
private let maximumReasons = 64
private let maximumReasonBytes = 1024
