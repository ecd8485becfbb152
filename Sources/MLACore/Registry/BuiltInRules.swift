/// What a built-in backend serves: vLLM's rules on a GPU, the native kernels'
/// on the CPU.
extension BuiltInBackend {
  /// Why it does not serve a configuration, in vLLM's order and words.
  ///
  /// - Parameters:
  ///   - servesZenCPU: whether the host is one that ZEN_CPU is for.
  ///   - providesCUDA: whether it has a CUDA device that the library has kernels for.
  func invalidReasons(
    _ config: SelectorConfig, servesZenCPU: Bool, providesCUDA: @autoclosure () -> Bool
  ) -> [String] {
    switch config.platform {
    case .cpu: cpuReasons(config, servesZenCPU: servesZenCPU)
    case .cuda: gpuReasons(config, isProvided: runsOnCUDA && providesCUDA())
    case .rocm: gpuReasons(config, isProvided: false)
    }
  }

  private func cpuReasons(_ config: SelectorConfig, servesZenCPU: Bool) -> [String] {
    var reasons: [String] = []
    if !(config.dtype?.isAttentionType ?? false) {
      reasons.append("dtype \(config.dtypeName) not supported")
    }
    if self == .zenCPU && !servesZenCPU { reasons.append(missingDependencies) }
    return reasons
  }

  func gpuReasons(_ config: SelectorConfig, isProvided: Bool) -> [String] {
    var reasons: [String] = []
    if !supportsCapability(config) {
      if let capability = config.capability {
        reasons.append(
          "compute capability \(capability.major).\(capability.minor) not supported")
      } else {
        reasons.append("device capability not available")
      }
    }
    if !gpuDtypes.contains(config.dtype) {
      reasons.append("dtype \(config.dtypeName) not supported")
    }
    if !isProvided {
      reasons.append(self == .tokenspeedMLA ? tokenspeedInstallHint : missingDependencies)
    }
    if let supported = gpuDimensions, !supported.contains(config.dimensions) {
      var reason = "Model does not have supported MLA dimensions (got \(config.dimensions)"
      if listsDimensions {
        reason += "; supported: " + supported.map(\.description).joined(separator: ", ")
      }
      reasons.append(reason + ")")
    }
    if self == .rocmAiterFA && config.isBatchInvariant {
      reasons.append("batch invariance not supported")
    }
    return reasons
  }

  private func supportsCapability(_ config: SelectorConfig) -> Bool {
    switch self {
    case .flashAttn, .cpu, .zenCPU: true
    case .flashInfer, .trtllmRagged, .tokenspeedMLA: config.capability?.major == 10
    case .rocmAiterFA:
      config.platform == .rocm
        && [DeviceCapability(9, 4), DeviceCapability(9, 5)].contains(config.capability)
    }
  }

  private var gpuDtypes: [ElementType?] {
    switch self {
    case .cpu, .zenCPU: [.float16, .bfloat16, .float32]
    default: [.float16, .bfloat16]
    }
  }

  /// nil: any.
  private var gpuDimensions: [MLADimensions]? {
    switch self {
    case .flashAttn: [.deepSeek, .glm5, .mistralSmall4, .glm5Next]
    case .trtllmRagged: [.deepSeek, .glm5]
    case .flashInfer, .tokenspeedMLA: [.deepSeek]
    case .rocmAiterFA, .cpu, .zenCPU: nil
    }
  }

  /// vLLM's FLASH_ATTN tests dimensions by a method of its own, whose reason
  /// does not list them.
  private var listsDimensions: Bool { self != .flashAttn }
}

private let missingDependencies = "required dependencies not available"
private let tokenspeedInstallHint =
  "tokenspeed_mla package is not installed. Install it with: `uv pip install tokenspeed-mla`"
