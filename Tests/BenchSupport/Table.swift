import Foundation

/// A comparison as text.
public enum Table {
  private static let columns: [(title: String, width: Int)] = [
    ("S", 6), ("kernel", 18), ("TFLOP/s: median", 17), ("best", 7), ("of peak", 9),
    ("of instruction", 16), ("x OpenBLAS", 12), ("rel. difference", 17),
  ]

  public static let header = line(columns.map(\.title))

  public static func lines(_ comparison: Comparison) -> [String] {
    var lines = comparison.measurements.map { m in
      line([
        "\(comparison.shape)", m.kernelCase.description, number(m.median, 3), number(m.best, 3),
        number(m.fractionOfPeak, 2), m.instruction, number(m.ratioToOpenBLAS, 2),
        m.difference.map { scientific($0) } ?? "-",
      ])
    }
    if let speed = comparison.openBLAS {
      lines.append(line(["\(comparison.shape)", "OpenBLAS fp32", number(speed, 3)]))
    } else {
      lines.append("  libopenblas.so.0 not found: no comparison")
    }
    return lines
  }

  public static func pad(_ text: String, _ width: Int, right: Bool = false) -> String {
    let fill = String(repeating: " ", count: max(width - text.count, 0))
    return right ? fill + text : text + fill
  }

  static func number(_ value: Double?, _ digits: Int) -> String {
    value.map { String(format: "%.\(digits)f", $0) } ?? "-"
  }

  public static func scientific(_ value: Double, _ width: Int = 0) -> String {
    pad(String(format: "%.1e", value), width, right: true)
  }

  private static func line(_ fields: [String]) -> String {
    zip(fields, columns).map { pad($0, $1.width, right: true) }.joined()
  }
}
