import CMLAPrefill

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
    let text = reason.map { String(cString: $0) } ?? "no reason given"
    sink?.assumingMemoryBound(to: [String].self).pointee.append(text)
  }
}
