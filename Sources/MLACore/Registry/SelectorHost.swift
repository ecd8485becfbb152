import Glibc

extension Selector {
  /// The selector of this process: its registry, its CPU, its environment as it
  /// is now.
  public static func current() -> Selector {
    Selector(
      registry: .shared, servesZenCPU: false,
      environmentChoice: getenv("MLA_PREFILL_BACKEND").flatMap { String(validatingCString: $0) })
  }
}
