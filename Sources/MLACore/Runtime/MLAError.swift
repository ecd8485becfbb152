import CMLAPrefill

/// What every layer throws; the entries turn it into a status and the calling
/// thread's last error message.
public struct MLAError: Error, Equatable, Sendable {
  public let status: mla_status
  public let message: String

  public init(_ status: Int, _ message: String) {
    self.status = mla_status(status)
    self.message = message
  }

  /// The one wording for a broken rule: field, value, rule.
  public static func invalid(_ field: String, _ value: some CustomStringConvertible, _ rule: String)
    -> MLAError
  {
    MLAError(MLA_ERROR_INVALID_ARGUMENT, "\(field) = \(value): \(rule)")
  }

  public static func null(_ field: String) -> MLAError {
    invalid(field, "NULL", "must not be NULL")
  }

  public static func outOfMemory(_ what: String, bytes: Int) -> MLAError {
    MLAError(MLA_ERROR_OUT_OF_MEMORY, "\(what): \(bytes) bytes could not be allocated")
  }
}
