import CMLAPrefill

/// Which backends exist and what overrides them. Any thread, any time.
///
/// What a change displaces is handed out of the lock before it is let go:
/// with it may go a context, whose destructor is foreign code.
public final class Registry: Sendable {
  /// The process has one; tests make their own.
  public static let shared = Registry()

  private let members: Guarded<[Member]>

  public init() {
    members = Guarded(
      BuiltInBackend.allCases.map { Member(name: $0.name, base: .builtIn($0)) }
        + [Member(name: "CUSTOM", base: .placeholder)])
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
  public func register(_ name: String, _ request: RegistrationRequest) throws(MLAError) {
    try members.withLock { members throws(MLAError) in
      guard !members.contains(where: { $0.name == name }) else {
        let path = request.classPath ?? "your.module.YourClass"
        throw MLAError(
          MLA_ERROR_INVALID_ARGUMENT,
          "MLA prefill backend \(name) already exists in MLAPrefillBackendEnum. "
            + "Use register_mla_prefill_backend(MLAPrefillBackendEnum.\(name), '\(path)') to override.")
      }
      guard MemberName.isAllowed(name) else {
        throw MLAError(
          MLA_ERROR_INVALID_ARGUMENT, "Invalid or reserved backend name: \(name)")
      }
      members.append(Member(name: name, base: .dynamic(Registration(adopting: request))))
    }
    Log.info("Registered new MLA prefill backend: \(name) -> \(request.classPath ?? "a vtable")")
  }

  /// Puts another implementation behind a member. The context is adopted only
  /// if this succeeds.
  public func override(_ name: String, _ request: RegistrationRequest) throws(MLAError) {
    guard request.vtable != nil || request.classPath?.isEmpty == false else {
      throw .invalid("registration.class_path", "\"\"", "must not be empty without a vtable")
    }
    let displaced = try members.withLock { members throws(MLAError) -> Registration? in
      let index = try Self.index(of: name, in: members)
      let displaced = members[index].override
      members[index].override = Registration(adopting: request)
      return displaced
    }
    _ = consume displaced
  }

  public func clearOverride(_ name: String) throws(MLAError) {
    let displaced = try members.withLock { members throws(MLAError) -> Registration? in
      let index = try Self.index(of: name, in: members)
      let displaced = members[index].override
      members[index].override = nil
      return displaced
    }
    _ = consume displaced
  }

  /// Removes a dynamic member and its override.
  public func remove(_ name: String) throws(MLAError) {
    let removed = try members.withLock { members throws(MLAError) -> Member in
      let index = try Self.index(of: name, in: members)
      guard members[index].isDynamic else {
        throw .invalid("name", name, "only members added by mla_register_backend can be removed")
      }
      return members.remove(at: index)
    }
    _ = consume removed
  }

  private static func index(of name: String, in members: [Member]) throws(MLAError) -> Int {
    guard let index = members.firstIndex(where: { $0.name == name }) else {
      let options = members.map(\.name).joined(separator: ", ")
      throw MLAError(
        MLA_ERROR_NOT_REGISTERED,
        "Unknown MLA prefill backend: '\(name)'. Valid options are: \(options)")
    }
    return index
  }
}
