import Foundation

/// A bar on stderr, where that is a terminal; nothing elsewhere.
public struct Progress {
  private let label: String
  private let total: Int
  private let isShown = isatty(STDERR_FILENO) == 1
  private static let width = 30

  public init(_ label: String, total: Int) { (self.label, self.total) = (label, total) }

  /// Gone when all is done.
  public func at(_ done: Int) {
    guard isShown else { return }
    let filled = Self.width * done / max(1, total)
    let bar =
      String(repeating: "#", count: filled) + String(repeating: ".", count: Self.width - filled)
    let blank = String(repeating: " ", count: label.count + Self.width + 3)
    let text = "\r\(label) [\(bar)]" + (done == total ? "\r\(blank)\r" : "")
    FileHandle.standardError.write(Data(text.utf8))
  }
}
