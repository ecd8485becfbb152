import MLAKernelABI
import MLAShims

@inline(never)
func convertRows(_ args: UnsafePointer<mla_convert_args>?) {
  let a = args.unsafelyUnwrapped.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: convert(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: convert(Float16Format.self, a)
  case MLA_FORMAT_FLOAT8_E4M3FN: convert(Float8Format.self, a)
  default: convert(Float32Format.self, a)
  }
}

@inline(__always)
private func convert<Source: ElementFormat>(_: Source.Type, _ a: mla_convert_args) {
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: convert(Source.self, BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: convert(Source.self, Float16Format.self, a)
  case MLA_FORMAT_FLOAT8_E4M3FN: convert(Source.self, Float8Format.self, a)
  default: convert(Source.self, Float32Format.self, a)
  }
}

@inline(__always)
private func convert<Source: ElementFormat, Target: TargetFormat>(
  _: Source.Type, _: Target.Type, _ a: mla_convert_args
) {
  let dim = Int(a.row_dim)
  let multiplier = FloatVector(repeating: a.multiplier)
  for row in 0..<Int(a.num_rows) {
    let source = a.rows.unsafelyUnwrapped + row * Int(a.row_stride) * Source.bytes
    let out = a.out.unsafelyUnwrapped + row * Int(a.out_stride) * Target.bytes
    var d = 0
    while d < dim {
      let values = loadTail(Source.self, source + d * Source.bytes, (dim - d) * Source.bytes)
      storeTail(Target.self, values * multiplier, out + d * Target.bytes, dim - d)
      d += lanes
    }
  }
}
