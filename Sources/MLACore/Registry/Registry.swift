import CMLAPrefill

/// Which backends exist and what overrides them. Any thread, any time.
///
/// A change makes a list of its own, and the one before is let go out of the lock:
/// with it may go a context, whose destructor is foreign code.
public final class Registry: Sendable {
  private let members: Guarded<[Member]>

  /// Far above any engine's; keeps what grows with it small.
  public static let maximumDynamicMembers = 1024

  public init() {
    members = Guarded(
      BuiltInBackend.allCases.map { Member(name: $0.name, own: .builtIn($0)) }
        + [Member(name: "CUSTOM", own: nil)])
  }

  /// All members at this moment, in order of definition.
  public func snapshot() -> [Member] { members.withLock { $0 } }

  public func member(_ name: String) throws(MLAError) -> Member {
    let members = snapshot()
    return members[try Self.index(of: name, in: members)]
  }

  public func implementation(of name: String, ignoringOverride: Bool = false) throws(MLAError)
    -> Implementation
  {
    try member(name).resolved(ignoringOverride: ignoringOverride).implementation()
  }

  /// Adds a dynamic member. The context is adopted only if this succeeds.
  public func register(_ name: String, _ registration: Registration) throws(MLAError) {
    try change(adopting: registration) { members throws(MLAError) in
      guard !members.contains(where: { $0.name == name }) else {
        let path = registration.classPath ?? "your.module.YourClass"
        throw MLAError(
          MLA_ERROR_INVALID_ARGUMENT,
          "MLA prefill backend \(name) already exists in MLAPrefillBackendEnum. "
            + "Use register_mla_prefill_backend(MLAPrefillBackendEnum.\(name), '\(path)') to override.")
      }
      guard MemberName.isAllowed(name) else {
        throw MLAError(
          MLA_ERROR_INVALID_ARGUMENT, "Invalid or reserved backend name: \(name)")
      }
      guard members.count(where: \.isDynamic) < Self.maximumDynamicMembers else {
        throw .invalid(
          "name", name, "no more than \(Self.maximumDynamicMembers) members can be added")
      }
      members.append(
        Member(
          name: name, own: registration.isEmpty ? nil : .registered(registration),
          isDynamic: true))
    }
    Log.info("Registered new MLA prefill backend: \(name) -> \(registration.classPath ?? "a vtable")")
  }

  /// Puts another implementation behind a member, with nil its own again. The context is
  /// adopted only if this succeeds.
  public func override(_ name: String, _ registration: Registration?) throws(MLAError) {
    if let registration, registration.isEmpty {
      throw .invalid("registration.class_path", "\"\"", "must not be empty without a vtable")
    }
    try change(adopting: registration) { members throws(MLAError) in
      members[try Self.index(of: name, in: members)].override = registration
    }
  }

  /// Removes a dynamic member and its override.
  public func remove(_ name: String) throws(MLAError) {
    try change { members throws(MLAError) in
      let index = try Self.index(of: name, in: members)
      guard members[index].isDynamic else {
        throw .invalid("name", name, "only members added by mla_register_backend can be removed")
      }
      members.remove(at: index)
    }
  }

  /// All of a change or, where it throws or memory is short, nothing of it. What it
  /// displaces goes after the lock.
  private func change(
    adopting registration: Registration? = nil,
    _ body: (inout [Member]) throws(MLAError) -> Void
  ) throws(MLAError) {
    let displaced = try members.withLock { members throws(MLAError) in
      var changed = members
      try body(&changed)
      try Shortage.check()
      registration?.backend?.adoptContext()
      swap(&members, &changed)
      return changed
    }
    _ = consume displaced
  }

  private static func index(of name: String, in members: [Member]) throws(MLAError) -> Int {
    guard let index = members.firstIndex(where: { $0.name == name }) else {
      // As many as somebody might read: the text must be had where memory is short, too.
      let rest = members.count > 64 ? ["..."] : []
      let options = (members.prefix(64).map(\.name) + rest).joined(separator: ", ")
      throw MLAError(
        MLA_ERROR_NOT_REGISTERED,
        "Unknown MLA prefill backend: '\(name)'. Valid options are: \(options)")
    }
    return index
  }
}
