import CMLAPrefill

extension RegisteredBackend {
  /// Why it does not serve a configuration, in its own words. Runs foreign
  /// code: not to be called under a lock.
  func invalidReasons(_ config: SelectorConfig) -> [String] {
    guard let validate = vtable.validate else { return [] }
    // A failing validate is a reason, not the caller's error.
    let earlierError = String(cString: LastError.cString)
    LastError.set("")
    defer { LastError.set(earlierError) }
    var reasons: [String] = []
    let status = config.withCStruct { config in
      withUnsafeMutablePointer(to: &reasons) { sink in
        validate(vtable.context, config, appendReason, sink)
      }
    }
    if status != MLA_OK {
      let said = String(cString: LastError.cString)
      reasons.append("validate failed: " + (said.isEmpty ? "status \(status)" : said))
    }
    return reasons
  }
}

private func appendReason(_ sink: UnsafeMutableRawPointer?, _ reason: UnsafePointer<CChar>?) {
  let text = reason.map { String(cString: $0) } ?? "no reason given"
  sink?.assumingMemoryBound(to: [String].self).pointee.append(text)
}
