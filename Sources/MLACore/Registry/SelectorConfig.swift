import CMLAPrefill

/// Where the tensors will be.
public enum Platform: Sendable { case cpu, cuda, rocm }

/// What a backend must serve, checked.
public struct SelectorConfig: Sendable {
  /// nil: none (MLA_DTYPE_NONE).
  var dtype: ElementType?
  var dimensions: MLADimensions
  var platform = Platform.cpu
  /// Whether `platform` is only what is there for sure.
  var isPlatformOpen = false
  /// nil where it is not known.
  var capability: DeviceCapability?
  var isBatchInvariant = false
  /// Whether members are judged by their own implementations alone.
  var ignoresOverrides = false
  /// The engine's explicit choice.
  var backend: String?
}

extension SelectorConfig {
  public init(_ pointer: UnsafePointer<mla_selector_config>?) throws(MLAError) {
    let config = try readStruct(pointer, name: "config")
    self.init(
      dtype: config.dtype == MLA_DTYPE_NONE
        ? nil : try ElementType(config.dtype, field: "config.dtype"),
      dimensions: MLADimensions(
        try Self.headDim(config.qk_nope_head_dim, "qk_nope_head_dim"),
        try Self.headDim(config.qk_rope_head_dim, "qk_rope_head_dim"),
        try Self.headDim(config.v_head_dim, "v_head_dim")),
      platform: try Self.platform(config.platform),
      isPlatformOpen: config.platform == MLA_PLATFORM_AUTO,
      capability: try Self.capability(config.capability_major, config.capability_minor),
      isBatchInvariant: config.batch_invariant != 0,
      ignoresOverrides: config.ignore_overrides != 0,
      backend: try config.backend.map { name throws(MLAError) in
        try readString(name, field: "config.backend", maximumBytes: maximumNameBytes)
      })
  }

  /// As torch spells it.
  var dtypeName: String {
    switch dtype {
    case nil: "None"
    case .float32: "torch.float32"
    case .float16: "torch.float16"
    case .bfloat16: "torch.bfloat16"
    case .float8E4M3: "torch.float8_e4m3fn"
    case .float8E8M0: "torch.float8_e8m0fnu"
    }
  }

  /// What a vtable's `validate` gets: the platform resolved, the tail that an
  /// older library's caller lacks filled in.
  func withCStruct<Result>(_ body: (UnsafePointer<mla_selector_config>) -> Result) -> Result {
    var config = mla_selector_config()
    config.struct_size = mla_selector_config.size
    config.dtype = dtype?.rawValue ?? Int32(MLA_DTYPE_NONE)
    config.qk_nope_head_dim = dimensions.qkNopeHeadDim
    config.qk_rope_head_dim = dimensions.qkRopeHeadDim
    config.v_head_dim = dimensions.vHeadDim
    config.platform =
      switch platform {
      case .cpu: Int32(MLA_PLATFORM_CPU)
      case .cuda: Int32(MLA_PLATFORM_CUDA)
      case .rocm: Int32(MLA_PLATFORM_ROCM)
      }
    config.capability_major = capability?.major ?? -1
    config.capability_minor = capability?.minor ?? -1
    config.batch_invariant = isBatchInvariant ? 1 : 0
    config.ignore_overrides = ignoresOverrides ? 1 : 0
    guard let backend else { return body(&config) }
    return backend.withCString { name in
      config.backend = name
      return body(&config)
    }
  }

  private static func headDim(_ value: Int32, _ field: String) throws(MLAError) -> Int32 {
    try checkRange("config.\(field)", value, 0...maximumHeadDim)
    return value
  }

  private static func platform(_ value: Int32) throws(MLAError) -> Platform {
    switch Int(value) {
    case MLA_PLATFORM_AUTO, MLA_PLATFORM_CPU: return .cpu
    case MLA_PLATFORM_CUDA: return .cuda
    case MLA_PLATFORM_ROCM: return .rocm
    default: throw .invalid("config.platform", value, "must be one of MLA_PLATFORM_*")
    }
  }

  private static func capability(_ major: Int32, _ minor: Int32) throws(MLAError)
    -> DeviceCapability?
  {
    guard (-1...maximumCapability).contains(major) else {
      throw .invalid(
        "config.capability_major", major, "must be -1 (not known) or 0 to \(maximumCapability)")
    }
    guard major >= 0 else { return nil }
    try checkRange("config.capability_minor", minor, 0...maximumCapability)
    return DeviceCapability(major, minor)
  }
}

private let maximumCapability: Int32 = 999
