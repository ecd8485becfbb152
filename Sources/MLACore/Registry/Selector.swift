import CMLAPrefill

/// Chooses the backend for a configuration, by vLLM's rules and texts.
public struct Selector: Sendable {
  let registry: Registry
  /// Whether the host is one that ZEN_CPU is for.
  let servesZenCPU: Bool
  /// What MLA_PREFILL_BACKEND says, if it is set.
  var environmentChoice: String?
  /// The capability of the host's CUDA device, where the library has kernels for it. Asked
  /// where the answer depends on it alone: it looks for a library of NVIDIA's.
  var cudaCapability: @Sendable () -> DeviceCapability? = { nil }

  /// The name of the backend that serves `config`.
  public func select(_ config: SelectorConfig) throws(MLAError) -> String {
    let name =
      if let config = onCUDA(config), let name = try? choose(config) {
        name
      } else {
        try choose(config)
      }
    Log.info("Using \(name) MLA prefill backend.")
    return name
  }

  private func choose(_ config: SelectorConfig) throws(MLAError) -> String {
    if let choice = config.backend {
      if isAutomatic(choice) { return try selectAutomatically(config) }
      return try selectExplicitly(choice, config)
    }
    guard let choice = environmentChoice, !choice.isEmpty, !isAutomatic(choice) else {
      return try selectAutomatically(config)
    }
    do throws(MLAError) {
      return try selectExplicitly(choice, config)
    } catch {
      // Else nobody would know where the choice came from.
      throw MLAError(Int(error.status), "MLA_PREFILL_BACKEND = \(choice): \(error.message)")
    }
  }

  /// Why the member of that name does not serve `config`.
  public func invalidReasons(_ name: String, _ config: SelectorConfig) throws(MLAError) -> [String] {
    try invalidReasons(registry.member(name), config)
  }

  /// Why a member does not serve `config`; throws if nothing stands behind it.
  func invalidReasons(_ member: Member, _ config: SelectorConfig) throws(MLAError) -> [String] {
    if let config = onCUDA(config), case let reasons = try ownReasons(member, config),
      reasons.isEmpty
    {
      return reasons
    }
    return try ownReasons(member, config)
  }

  /// The same for the host's CUDA device, where the caller leaves the platform open and there
  /// is one. What does not work there is judged for the CPU: that always is there, too.
  private func onCUDA(_ config: SelectorConfig) -> SelectorConfig? {
    guard config.isPlatformOpen, let capability = cudaCapability() else { return nil }
    var config = config
    (config.platform, config.capability, config.isPlatformOpen) = (.cuda, capability, false)
    return config
  }

  private func ownReasons(_ member: Member, _ config: SelectorConfig) throws(MLAError) -> [String] {
    switch member.resolved(ignoringOverride: config.ignoresOverrides).provider {
    case .builtIn(let backend):
      backend.invalidReasons(
        config, servesZenCPU: servesZenCPU, providesCUDA: cudaCapability() != nil)
    // The rules of a class that only another language can load are unknown here.
    case .registered(let registration): try registration.backend?.invalidReasons(config) ?? []
    case nil: throw member.notRegistered
    }
  }

  private func selectExplicitly(_ choice: String, _ config: SelectorConfig) throws(MLAError)
    -> String
  {
    let member = try chosenMember(choice)
    let reasons = try invalidReasons(member, config)
    guard reasons.isEmpty else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "Selected MLA prefill backend \(member.name) is not valid for this configuration. "
          + "Reason: \(pythonList(reasons))")
    }
    return member.name
  }

  /// vLLM reads choices in upper case; dynamic members may be in any.
  private func chosenMember(_ choice: String) throws(MLAError) -> Member {
    do throws(MLAError) {
      return try registry.member(choice)
    } catch {
      guard let member = try? registry.member(choice.uppercased()) else { throw error }
      return member
    }
  }

  private func selectAutomatically(_ config: SelectorConfig) throws(MLAError) -> String {
    if config.platform == .cuda && config.capability == nil {
      return BuiltInBackend.flashAttn.name
    }
    var rejected: [String] = []
    for backend in automaticPriorities(config) {
      let reasons = try invalidReasons(registry.member(backend.name), config)
      if reasons.isEmpty { return backend.name }
      Verbose.explain { "select,not \(backend.name): \(reasons.joined(separator: "; "))" }
      rejected.append("\(backend.name): [\(reasons.joined(separator: ", "))]")
    }
    throw MLAError(
      MLA_ERROR_UNSUPPORTED_CONFIGURATION,
      "No valid MLA prefill backend found with MLAPrefillSelectorConfig("
        + "dtype=\(config.dtypeName), mla_dimensions=\(config.dimensions)). "
        + "Reasons: {\(rejected.joined(separator: ", "))}.")
  }
}

/// In which order backends are tried for a configuration without a choice.
func automaticPriorities(_ config: SelectorConfig) -> [BuiltInBackend] {
  switch config.platform {
  case .cpu: return [.zenCPU, .cpu]
  case .rocm: return [.rocmAiterFA, .flashAttn]
  case .cuda:
    guard config.capability?.major == 10 else { return [.flashAttn] }
    return config.dimensions == .glm5
      ? [.trtllmRagged, .flashAttn, .flashInfer, .tokenspeedMLA]
      : [.flashAttn, .trtllmRagged, .flashInfer, .tokenspeedMLA]
  }
}

private func isAutomatic(_ choice: String) -> Bool { choice.lowercased() == "auto" }

/// A list of strings as Python prints it: callers of vLLM match on its texts.
private func pythonList(_ items: [String]) -> String {
  "[" + items.map(pythonString).joined(separator: ", ") + "]"
}

private func pythonString(_ text: String) -> String {
  let quote: Character = text.contains("'") && !text.contains("\"") ? "\"" : "'"
  var quoted = String(quote)
  for character in text {
    switch character {
    case "\n": quoted += "\\n"
    case "\r": quoted += "\\r"
    case "\t": quoted += "\\t"
    case "\\", quote: quoted += "\\\(character)"
    default: quoted.append(character)
    }
  }
  return quoted + String(quote)
}
