import MLAKernelABI
import MLAShims

@inline(never)
func convertRows(_ args: UnsafePointer<mla_convert_args>) {
  let a = args.pointee
  if a.format == a.out_format && a.multiplier == 1 && a.scales == nil { return copyRows(a) }
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: convert(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: convert(Float16Format.self, a)
  case MLA_FORMAT_FLOAT8_E4M3FN: convert(Float8Format.self, a)
  default: convert(Float32Format.self, a)
  }
}

@inline(__always)
private func copyRows(_ a: mla_convert_args) {
  let bytes: Int
  switch Int(a.format) {
  case MLA_FORMAT_FLOAT32: bytes = Float32Format.bytes
  case MLA_FORMAT_FLOAT8_E4M3FN: bytes = Float8Format.bytes
  default: bytes = BFloat16Format.bytes
  }
  for row in 0..<Int(a.num_rows) {
    (a.out.unsafelyUnwrapped + row * Int(a.out_stride) * bytes).copyMemory(
      from: a.rows.unsafelyUnwrapped + row * Int(a.row_stride) * bytes,
      byteCount: Int(a.row_dim) * bytes)
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
  let group = a.scales == nil ? dim : Int(a.scale_group)
  for row in 0..<Int(a.num_rows) {
    let source = a.rows.unsafelyUnwrapped + row * Int(a.row_stride) * Source.bytes
    let out = a.out.unsafelyUnwrapped + row * Int(a.out_stride) * Target.bytes
    var (d, scaleOffset) = (0, row * Int(a.scale_stride))
    while d < dim {
      let end = min(d + group, dim)
      let scale = a.scales?.loadUnaligned(fromByteOffset: scaleOffset, as: Float.self) ?? 1
      let multiplier = scale * a.multiplier
      if Source.self == Float8Format.self && Target.self == BFloat16Format.self {
        d += writeFloat8AsBFloat16(
          source + d, to: out + d * Target.bytes, count: end - d, times: multiplier)
      }
      while d < end {
        let values = loadTail(Source.self, source + d * Source.bytes, (end - d) * Source.bytes)
        storeTail(Target.self, values * FloatVector(repeating: multiplier), out + d * Target.bytes, end - d)
        d += lanes
      }
      (d, scaleOffset) = (end, scaleOffset + 4)
    }
  }
}
