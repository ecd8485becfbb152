// What the kernels' tests use of Foundation, of which there is none for this compiler and Arm.
@_exported import Glibc

public struct ProcessInfo: Sendable {
  public static let processInfo = ProcessInfo()
  public var environment: Environment { Environment() }

  public struct Environment: Sendable {
    public subscript(name: String) -> String? { getenv(name).map { String(cString: $0) } }
  }
}

extension String {
  /// Of one number, to two decimal places whatever the format.
  public init(format: String, _ number: Double) { self = "\((number * 100).rounded() / 100)" }
}
