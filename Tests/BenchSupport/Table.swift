import Foundation

/// A comparison as text.
public enum Table {
  public static let header =
    "     S  kernel               median    best TFLOP/s   of peak (instruction)      x OpenBLAS  rel. difference"

  public static func lines(_ tokens: Int, _ comparison: Comparison) -> [String] {
    var lines = comparison.measurements.map { m in
      pad("\(tokens)", 6, right: true) + "  " + pad(m.kernelCase.description, 20)
        + number(m.median, 7, 3) + number(m.best, 8, 3) + "        "
        + number(m.fractionOfPeak, 7, 2) + "  " + pad("(\(m.instruction))", 16)
        + number(m.ratioToOpenBLAS, 12, 2) + number(m.difference.map { $0 * 1e3 }, 14, 2)
        + "e-3"
    }
    if let speed = comparison.openBLAS {
      lines.append(
        pad("\(tokens)", 6, right: true) + "  " + pad("OpenBLAS fp32", 20) + number(speed, 7, 3))
    } else {
      lines.append("        libopenblas.so.0 not found: no comparison")
    }
    return lines
  }

  public static func pad(_ text: String, _ width: Int, right: Bool = false) -> String {
    let fill = String(repeating: " ", count: max(width - text.count, 0))
    return right ? fill + text : text + fill
  }

  public static func number(_ value: Double?, _ width: Int, _ digits: Int) -> String {
    pad(value.map { String(format: "%.\(digits)f", $0) } ?? "-", width, right: true)
  }
}
