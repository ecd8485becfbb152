import CMLAPrefill

/// A family of kernels, named after the instruction set that it needs; the
/// values of MLA_ISA_*, weakest first.
public enum KernelFamily: Int32, CaseIterable, Comparable, Sendable {
  case portable = 1
  case avx2 = 2
  case avx512 = 3
  case avx512BF16 = 4
  case amx = 5

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
    }
  }

  public init?(name: String) {
    guard let family = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = family
  }
}
