import CMLAPrefill

extension RegisteredBackend {
  /// Why it does not serve a configuration, in its own words. Runs foreign
  /// code: not to be called under a lock.
  func invalidReasons(_ config: SelectorConfig) -> [String] {
    guard let validate = vtable.validate else { return [] }
    var reasons: [String] = []
    let status = config.withCStruct { config in
      withUnsafeMutablePointer(to: &reasons) { sink in
        validate(
          vtable.context, config,
          { sink, reason in
            let text = reason.map { String(cString: $0) } ?? "no reason given"
            sink?.assumingMemoryBound(to: [String].self).pointee.append(text)
          }, sink)
      }
    }
    if status != MLA_OK { reasons.append("validate failed with status \(status)") }
    return reasons
  }
}
