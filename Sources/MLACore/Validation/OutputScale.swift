/// What a quantized output is divided by: static, one for the whole tensor.
public struct OutputScale: Sendable {
  public let value: Float

  /// What a result is multiplied by.
  var multiplier: Float { 1 / value }

  /// nil where there is none. An output of fp8 has one, no other has.
  init?(_ pointer: UnsafePointer<Float>?, for output: CallTensor) throws(MLAError) {
    let value = pointer?.pointee
    if let value { try checkQuantizingScale("output_scale", value) }
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

/// What is quantized is multiplied by a scale's inverse. That of a scale outside of this
/// range is no number of fp32 or a subnormal one, which is none of a scale's.
func checkQuantizingScale(_ field: String, _ value: Float) throws(MLAError) {
  guard (0x1p-126...0x1p126).contains(value) else {
    throw .invalid(field, value, "must be from 2^-126 to 2^126")
  }
}
