/// Requests of equal length, "512" or "8x128".
public struct BatchShape: Sendable, CustomStringConvertible {
  public let requests: Int
  /// Of each request.
  public let tokens: Int

  public init(requests: Int = 1, tokens: Int) { (self.requests, self.tokens) = (requests, tokens) }

  /// nil for a text that is neither; numbers are not judged.
  public init?(_ text: Substring) {
    let numbers = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
    switch (numbers.count, numbers.first ?? nil, numbers.last ?? nil) {
    case (1, let tokens?, _): self.init(tokens: tokens)
    case (2, let requests?, let tokens?): self.init(requests: requests, tokens: tokens)
    default: return nil
    }
  }

  public var description: String { requests == 1 ? "\(tokens)" : "\(requests)x\(tokens)" }
  public var rows: Int { requests * tokens }
  public var queryStarts: [Int32] { (0...requests).map { Int32($0 * tokens) } }
}
