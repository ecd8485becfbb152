import MLAKernelABI
import MLAShims

/// Adds up partial results, see `mla_combine_args`.
@inline(never)
func combinePartials(_ args: UnsafePointer<mla_combine_args>) {
  let a = args.pointee
  let dims = Int(a.v_head_dim)
  for row in 0..<Int(a.num_rows) {
    let sum = a.sum.unsafelyUnwrapped + row * Int(a.row_stride)
    var softmax = OnlineSoftmax<Row1>(sum + dims)
    for i in 0..<Int(a.num_added) {
      let added = a.added.unsafelyUnwrapped + (i * Int(a.added_stride) + row * Int(a.row_stride))
      let (rescale, share) = softmax.update(OnlineSoftmax(added + dims))
      add(added, times: share.a, to: sum, times: rescale.a, dims: dims)
    }
    if let out = a.out {
      finish(softmax, UnsafeRawPointer(sum), out, row, a)
    } else {
      softmax.store(sum + dims)
    }
  }
}

@inline(__always)
private func add(
  _ added: UnsafePointer<Float>, times share: FloatVector, to sum: UnsafeMutablePointer<Float>,
  times rescale: FloatVector, dims: Int
) {
  var d = 0
  while d < dims {
    let bytes = (dims - d) * 4
    let before = loadTail(Float32Format.self, sum + d, bytes) * rescale
    let values = loadTail(Float32Format.self, added + d, bytes)
    storeTail(Float32Format.self, mla_multiply_add(values, share, before), sum + d, dims - d)
    d += lanes
  }
}

@inline(__always)
private func finish(
  _ softmax: OnlineSoftmax<Row1>, _ values: UnsafeRawPointer, _ out: UnsafeMutableRawPointer,
  _ row: Int, _ a: mla_combine_args
) {
  if let lse = a.lse {
    lse[row] = naturalLSE(reference: softmax.reference.a[0], sum: softmax.sum.a[0])
  }
  let dims = Int(a.v_head_dim)
  @inline(__always)
  func write<Format: TargetFormat>(_: Format.Type, times multiplier: FloatVector? = nil) {
    writeRow(
      Format.self, out + row * Int(a.out_stride) * Format.bytes, dims: dims,
      inverse: softmax.inverse.a, times: multiplier
    ) { loadTail(Float32Format.self, values + $0 * lanes * 4, (dims - $0 * lanes) * 4) }
  }
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: write(BFloat16Format.self)
  case MLA_FORMAT_FLOAT16: write(Float16Format.self)
  case MLA_FORMAT_FLOAT8_E4M3FN:
    write(Float8Format.self, times: FloatVector(repeating: a.out_multiplier))
  default: write(Float32Format.self)
  }
}
