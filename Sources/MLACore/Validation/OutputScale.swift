/// What a quantized output is divided by: static, one for the whole tensor.
public struct OutputScale: Sendable {
  public let value: Float

  /// Its inverse is the smallest normal number: kernels that flush subnormal ones
  /// would multiply by 0.
  private static let largest: Float = 0x1p126

  /// What a result is multiplied by.
  var multiplier: Float { quantizingMultiplier(value) }

  /// nil where there is none. An output of fp8 has one, no other has.
  init?(_ pointer: UnsafePointer<Float>?, for output: TensorView) throws(MLAError) {
    let value = pointer?.pointee
    if let value, !(value > 0 && value <= Self.largest) {
      throw .invalid("output_scale", value, "must be above 0 and at most 2^126")
    }
    guard (output.type == .float8E4M3) == (value != nil) else {
      throw .invalid(
        "output_scale", value.map { "\($0)" } ?? "NULL",
        "must be given with an fp8 output and only then; \(output.name).dtype is "
          + output.type.name)
    }
    guard let value else { return nil }
    self.value = value
  }
}

/// The inverse of a scale. That of a subnormal one would be infinite, and 0 times
/// that a NaN.
func quantizingMultiplier(_ scale: Float) -> Float { min(1 / scale, .greatestFiniteMagnitude) }
