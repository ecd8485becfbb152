import MLAKernelABI
import MLAShims

// Projection is the product of queries and keys with other rows: tokens are left
// operands, weights right ones,
//
//     tokens   [group][step][part][2]   16 tokens x 32 elements
//     weights  [group][step][part][2]   32 elements x 16 weights, turned
//
// in groups of 32 rows and steps of 32 elements. 32 weights stay in the L1 cache
// while all tokens are streamed past them.
//
// Cost: two left and two right operands for four products, sums stored once, and
// 2.6 vector instructions beside a product's 16 cycles. The model of a core
// (Tests/SoftwareAMX) puts a head's block of 512 keys at 0.89 of the tile unit's
// rate, 0.86 with its share of packing tokens for four heads; in fp16, which takes
// four times the products, at 0.92 of the rate.
//
// Products of bf16 and fp16 are exact, those of fp32 to 2^-22; their sums are fp32. Tiles must be configured:
// `project` and `project_block` run between the attention kernel's `enter` and `leave`.

/// Bytes of a group of 32 rows.
@inline(__always)
func rowGroupBytes<Operands: TileOperands>(_: Operands.Type, _ rowDim: Int64) -> Int {
  projectionSteps(rowDim) * Operands.parts * partBytes
}

@inline(__always)
func projectionSteps(_ rowDim: Int64) -> Int { (Int(rowDim) + 31) / 32 }

@inline(never)
func packedRowsBytes<Operands: TileOperands>(
  _: Operands.Type, _ rows: Int64, _ rowDim: Int64
) -> Int64 {
  (rows + 31) / 32 * Int64(rowGroupBytes(Operands.self, rowDim))
}

@inline(never)
func packTokens<Operands: TileOperands>(
  _: Operands.Type, _ args: UnsafePointer<mla_pack_rows_args>
) {
  let a = args.pointee
  for group in 0..<(Int(a.num_rows) + 31) / 32 {
    rows(Operands.self, a, group).packLeft(
      into: a.packed.unsafelyUnwrapped + group * rowGroupBytes(Operands.self, a.row_dim))
  }
}

@inline(never)
func packWeights<Operands: TileOperands>(
  _: Operands.Type, _ args: UnsafePointer<mla_pack_rows_args>
) {
  let a = args.pointee
  withUnsafeTemporaryAllocation(of: FloatVector.self, capacity: lanes) {
    let spare = $0.baseAddress.unsafelyUnwrapped
    for group in 0..<(Int(a.num_rows) + 31) / 32 {
      rows(Operands.self, a, group).packRight(
        signs: 0,
        into: a.packed.unsafelyUnwrapped + group * rowGroupBytes(Operands.self, a.row_dim),
        turning: spare)
    }
  }
}

@inline(__always)
private func rows<Operands: TileOperands>(
  _: Operands.Type, _ a: mla_pack_rows_args, _ group: Int
) -> RowSource<Operands> {
  let first = group * 32 * Int(a.row_stride) * Operands.Element.bytes
  return RowSource(
    start: a.rows.unsafelyUnwrapped + first, stride: Int(a.row_stride), dim: Int(a.row_dim),
    rows: min(32, Int(a.num_rows) - group * 32))
}

@inline(never)
func project<Operands: TileOperands>(_: Operands.Type, _ args: UnsafePointer<mla_project_args>) {
  let a = args.pointee
  let groupBytes = rowGroupBytes(Operands.self, a.row_dim)
  withStackVectors { products in
    for weight in stride(from: 0, to: Int(a.num_weights), by: 32) {
      for token in stride(from: 0, to: Int(a.num_tokens), by: 32) {
        var ahead = Prefetch.nothing
        var idle = NoWork()
        multiplyRows(
          Operands.self, a.tokens.unsafelyUnwrapped + token / 32 * groupBytes,
          a.weights.unsafelyUnwrapped + weight / 32 * groupBytes,
          steps: projectionSteps(a.row_dim), into: products, prefetching: &ahead, besides: &idle)
        writeProducts(products, args, token: token, weight: weight)
      }
    }
  }
}

/// Writes products of 32 tokens and 32 weights that exist, the first of them as given.
@inline(never)
private func writeProducts(
  _ products: UnsafePointer<FloatVector>, _ args: UnsafePointer<mla_project_args>, token: Int,
  weight: Int
) {
  let a = args.pointee
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: write(BFloat16Format.self, products, a, token: token, weight: weight)
  case MLA_FORMAT_FLOAT16: write(Float16Format.self, products, a, token: token, weight: weight)
  default: write(Float32Format.self, products, a, token: token, weight: weight)
  }
}

@inline(__always)
private func write<Format: ElementFormat>(
  _: Format.Type, _ products: UnsafePointer<FloatVector>, _ a: mla_project_args, token: Int,
  weight: Int
) {
  let count = Int(a.num_weights) - weight
  for row in 0..<min(32, Int(a.num_tokens) - token) {
    let out =
      a.out.unsafelyUnwrapped + ((token + row) * Int(a.out_stride) + weight) * Format.bytes
    storeTail(Format.self, products[2 * row], out, count)
    if count > lanes {
      storeTail(Format.self, products[2 * row + 1], out + lanes * Format.bytes, count - lanes)
    }
  }
}
