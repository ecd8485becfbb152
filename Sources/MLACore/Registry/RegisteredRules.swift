import CMLAPrefill
import Glibc

extension RegisteredBackend {
  /// Why it does not serve a configuration, in its own words. Runs foreign
  /// code: not to be called under a lock.
  func invalidReasons(_ config: SelectorConfig) -> [String] {
    guard let validate = vtable.validate else { return [] }
    // A failing validate is a reason, not the caller's error.
    var reasons: [String] = []
    let (said, status) = LastError.said {
      config.withCStruct { config in
        withUnsafeMutablePointer(to: &reasons) { sink in
          validate(vtable.context, config, appendReason, sink)
        }
      }
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

// What somebody else's code says shall not take more than there may be.
private let maximumReasons = 1000
private let maximumReasonBytes = 4096
