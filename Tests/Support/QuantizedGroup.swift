/// Values that share a scale in fp8_e4m3, by definition: the scale is the smallest
/// power of two from the largest magnitude / 448 in fp32 on, 2^-13 at least; NaN has
/// no part in it, infinities count as the largest finite number.
public struct QuantizedGroup {
  public let scale: Float
  /// 0x7F for NaN.
  public let codes: [UInt32]

  public init(_ values: [Double]) {
    let largest = values.filter { !$0.isNaN }.map { abs($0) }.max() ?? 0
    let finite = Float(min(largest, Double(Float.greatestFiniteMagnitude)))
    let needed = max(finite / 448, 0x1p-13)
    scale = needed.significand == 1 ? needed : 2 * needed / needed.significand
    codes = values.map { [scale] value in
      ElementFormat.float8E4M3FN.bits(Double(Float(value) / scale))
    }
  }
}
