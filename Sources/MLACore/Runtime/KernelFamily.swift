import CMLAPrefill

/// A family of kernels, named after the instruction set that it needs; the
/// values of MLA_ISA_*, weakest first.
public enum KernelFamily: Int32, CaseIterable, Comparable, Sendable {
  case portable = 1
  case avx2 = 2
  case avx512 = 3
  case avx512BF16 = 4
  case amx = 5
  case neon = 6
  case neonBF16 = 7

  public static func < (a: KernelFamily, b: KernelFamily) -> Bool { a.rawValue < b.rawValue }

  /// As MLA_MAX_ISA spells it.
  public var name: String { String(describing: staticName) }

  public var staticName: StaticString {
    switch self {
    case .portable: "portable"
    case .avx2: "avx2"
    case .avx512: "avx512"
    case .avx512BF16: "avx512_bf16"
    case .amx: "amx"
    case .neon: "neon"
    case .neonBF16: "neon_bf16"
    }
  }

  public init?(name: String) {
    guard let family = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = family
  }

  /// Whether this architecture's CPUs may be of it.
  public var isNative: Bool {
    switch self {
    case .portable: true
    #if arch(x86_64)
      case .avx2, .avx512, .avx512BF16, .amx: true
    #elseif arch(arm64)
      case .neon, .neonBF16: true
    #endif
    default: false
    }
  }

  /// What a host of this family uses that is to use no more than another.
  func capped(at cap: KernelFamily) -> KernelFamily { cap.isNative ? min(self, cap) : .portable }
}
