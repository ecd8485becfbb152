import Glibc
import MLAKernelABI

extension IndexTransform {
  /// Turns a row and divides it by its scale, in place; returns that.
  func apply(_ row: UnsafeMutablePointer<Float>, _ count: Int) -> Float {
    if turns { Self.turn(row, count) }
    guard let scale else { return 1 }
    let divisor = Self.scale(scale, of: row, count)
    for i in 0..<count { row[i] /= divisor }
    return divisor
  }

  /// Sums and differences at growing distances are the Hadamard matrix.
  private static func turn(_ row: UnsafeMutablePointer<Float>, _ count: Int) {
    var distance = 1
    while distance < count {
      for first in stride(from: 0, to: count, by: 2 * distance) {
        let (low, high) = (row + first, row + first + distance)
        for i in 0..<distance { (low[i], high[i]) = (low[i] + high[i], low[i] - high[i]) }
      }
      distance *= 2
    }
    let factor = Float(1 / Double(count).squareRoot())
    for i in 0..<count { row[i] *= factor }
  }

  private static func scale(
    _ scale: Scale, of row: UnsafeMutablePointer<Float>, _ count: Int
  ) -> Float {
    var largest: Float = 1e-4
    // No NaN is larger.
    for i in 0..<count where abs(row[i]) > largest { largest = abs(row[i]) }
    let needed = min(largest, .greatestFiniteMagnitude) / 448
    switch scale {
    case .float32: return needed
    // Up to the next exponent, unless nothing follows it.
    case .powerOfTwo: return Float(bitPattern: (needed.bitPattern + 0x7f_ffff) & 0x7f80_0000)
    }
  }
}

extension KernelTable {
  /// One row of contiguous elements into another.
  func convert(
    _ row: UnsafeRawPointer, _ type: ElementType, to out: UnsafeMutableRawPointer,
    _ outType: ElementType, count: Int
  ) {
    convert(
      mla_convert_args(
        rows: row, row_stride: 0, num_rows: 1, row_dim: Int64(count), format: type.rawValue,
        out_format: outType.rawValue, multiplier: 1, out: out, out_stride: 0))
  }
}
