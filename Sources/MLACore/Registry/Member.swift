import CMLAPrefill

/// One name of the registry and what stands behind it at one moment.
public struct Member: Sendable {
  public enum Base: Sendable {
    case builtIn(BuiltInBackend)
    /// A name without an implementation of its own.
    case placeholder
    /// Added at run time.
    case dynamic(Registration)
  }

  /// What serves the name, overrides respected.
  public enum Provider: Sendable {
    case builtIn(BuiltInBackend)
    case registered(Registration)
    case none
  }

  public let name: String
  let base: Base
  var override: Registration?

  public var isOverridden: Bool { override != nil }

  /// The member as one question sees it.
  func resolved(ignoringOverride: Bool) -> Member {
    guard ignoringOverride else { return self }
    var own = self
    own.override = nil
    return own
  }

  public var isDynamic: Bool {
    if case .dynamic = base { true } else { false }
  }

  public var provider: Provider {
    if let override { return .registered(override) }
    switch base {
    case .builtIn(let backend): return .builtIn(backend)
    case .placeholder: return .none
    case .dynamic(let registration):
      // vLLM's decorator form adds a member with "" and overrides it later.
      let isEmpty = registration.backend == nil && registration.classPath?.isEmpty ?? true
      return isEmpty ? .none : .registered(registration)
    }
  }

  /// The class path; nil where a vtable alone stands behind the name.
  public func classPath() throws(MLAError) -> String? {
    switch provider {
    case .builtIn(let backend): backend.classPath
    case .registered(let registration): registration.classPath
    case .none: throw notRegistered
    }
  }

  public func implementation() throws(MLAError) -> Implementation {
    switch provider {
    case .builtIn(let backend): return .builtIn(backend)
    case .none: throw notRegistered
    case .registered(let registration):
      guard let backend = registration.backend else {
        throw MLAError(
          MLA_ERROR_NOT_REGISTERED,
          "MLA prefill backend \(name) is registered as class '\(registration.classPath ?? "")' only: "
            + "without a vtable it cannot be created here")
      }
      return .registered(backend)
    }
  }

  /// vLLM's text for a member that has no class yet.
  var notRegistered: MLAError {
    MLAError(
      MLA_ERROR_NOT_REGISTERED,
      "MLA prefill backend \(name) must be registered before use. "
        + "Use register_mla_prefill_backend(MLAPrefillBackendEnum.\(name), "
        + "'your.module.YourClass')")
  }
}
