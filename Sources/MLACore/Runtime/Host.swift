import Glibc

/// The CPU this process runs on and the cap that its environment puts on it,
/// found once.
public struct Host: Sendable {
  public let features: CPUFeatures
  /// The strongest family in use: the best, unless MLA_MAX_ISA caps it.
  public let family: KernelFamily
  /// MLA_MAX_ISA where it names no family and is ignored; printable.
  let ignoredCap: String?

  public static let current = Host(cap: getenv("MLA_MAX_ISA").map { String(cString: $0) })

  init(cap text: String?) {
    let text = text.flatMap { $0.isEmpty ? nil : $0 }
    let cap = text.flatMap { KernelFamily(name: $0) }
    ignoredCap = cap == nil ? text.map(Self.printable) : nil
    features = .detect(requestAMX: cap.map { $0 == .amx } ?? true)
    family = cap.map(features.bestFamily.capped) ?? features.bestFamily
  }

  /// One line, not long, whatever the environment holds.
  private static func printable(_ text: String) -> String {
    var line = ""
    for scalar in text.unicodeScalars.prefix(40) {
      line.unicodeScalars.append((" "..."~").contains(scalar) ? scalar : "?")
    }
    return line
  }
}
