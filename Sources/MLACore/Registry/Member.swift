import CMLAPrefill

/// One name of the registry and what stands behind it at one moment.
public struct Member: Sendable {
  enum Provider: Sendable {
    case builtIn(BuiltInBackend)
    case registered(Registration)
  }

  let name: String
  /// nil: a name without an implementation of its own.
  let own: Provider?
  /// Added at run time.
  var isDynamic = false
  var override: Registration?

  public var isOverridden: Bool { override != nil }

  /// What serves the name, overrides respected.
  var provider: Provider? { override.map(Provider.registered) ?? own }

  /// The member as one question sees it.
  func resolved(ignoringOverride: Bool) -> Member {
    guard ignoringOverride else { return self }
    var own = self
    own.override = nil
    return own
  }

  /// The class path; nil where a vtable alone stands behind the name.
  public func classPath() throws(MLAError) -> String? {
    switch provider {
    case .builtIn(let backend): backend.classPath
    case .registered(let registration): registration.classPath
    case nil: throw notRegistered
    }
  }

  func implementation() throws(MLAError) -> Implementation {
    switch provider {
    case .builtIn(let backend): return .builtIn(backend)
    case nil: throw notRegistered
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
