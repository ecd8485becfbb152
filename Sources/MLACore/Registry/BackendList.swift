import CMLAPrefill

/// All members at one moment, judged by one configuration, if any. Never
/// changes, so any number of threads may read it.
public final class BackendList: @unchecked Sendable {
  private struct Row {
    var info: mla_backend_info
    var reasons: [UnsafePointer<CChar>]
  }

  private var rows: [Row] = []
  private let strings = CStringTable()

  /// - Parameter config: nil judges nothing and runs no foreign code.
  public init(_ selector: Selector, _ config: SelectorConfig?) throws(MLAError) {
    for member in selector.registry.snapshot() { rows.append(try row(member, selector, config)) }
  }

  public var count: Int { rows.count }

  /// - Throws: if there is no such row.
  public func info(at index: Int32) throws(MLAError) -> mla_backend_info {
    rows[try checked(index, field: "index", count: rows.count)].info
  }

  /// - Throws: if there is no such row or reason.
  public func reason(_ reason: Int32, at index: Int32) throws(MLAError) -> UnsafePointer<CChar> {
    let reasons = rows[try checked(index, field: "index", count: rows.count)].reasons
    return reasons[try checked(reason, field: "reason", count: reasons.count)]
  }

  private func row(_ listed: Member, _ selector: Selector, _ config: SelectorConfig?)
    throws(MLAError) -> Row
  {
    let member = listed.resolved(ignoringOverride: config?.ignoresOverrides ?? false)
    let reasons: [String]? =
      if let config { try selector.reasonsOrError(member, config) } else { nil }
    var info = mla_backend_info()
    info.is_valid = reasons?.isEmpty == true ? 1 : 0
    info.name = try strings.pointer(to: member.name)
    info.backend_name = try strings.pointer(to: member.backendName)
    // A member without a class has none to show; its reasons say so.
    if let path = try? member.classPath() { info.class_path = try strings.pointer(to: path) }
    info.reasons = try strings.pointer(to: (reasons ?? []).joined(separator: "; "))
    info.num_reasons = Int32(clamping: reasons?.count ?? 0)
    info.is_overridden = listed.isOverridden ? 1 : 0
    info.is_dynamic = member.isDynamic ? 1 : 0
    info.is_runnable = (try? member.implementation()) == nil ? 0 : 1
    return Row(
      info: info,
      reasons: try (reasons ?? []).map { reason throws(MLAError) in
        try strings.pointer(to: reason)
      })
  }

  private func checked(_ index: Int32, field: String, count: Int) throws(MLAError) -> Int {
    guard index >= 0, index < count else {
      throw .invalid(field, index, "must be at least 0 and below \(count)")
    }
    return Int(index)
  }
}

extension Selector {
  /// A member that nothing stands behind has its error for a reason.
  fileprivate func reasonsOrError(_ member: Member, _ config: SelectorConfig) throws(MLAError)
    -> [String]
  {
    do throws(MLAError) {
      return try invalidReasons(member, config)
    } catch where error.status != MLA_ERROR_OUT_OF_MEMORY {
      return [error.message]
    }
  }
}

extension Member {
  /// What stands behind the name calls itself (vLLM: get_name()).
  var backendName: String {
    switch provider {
    case .builtIn(let backend): backend.backendName
    case .registered(let registration): registration.backend?.backendName ?? name
    case nil: name
    }
  }
}
