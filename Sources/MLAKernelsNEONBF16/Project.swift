import MLAKernelABI
import MLAShims

@inline(never)
func packedTokensBytes(_ rows: Int64, _ rowDim: Int64) -> Int64 {
  packedBytes(vectors(of: Int(rows)) * lanes, rowDim)
}

@inline(never)
func packedWeightsBytes(_ rows: Int64, _ rowDim: Int64) -> Int64 {
  packedBytes(fours(of: Int(rows)) * 4, rowDim)
}

@inline(__always)
private func packedBytes(_ rows: Int, _ rowDim: Int64) -> Int64 {
  Int64(rows * steps(of: Int(rowDim)) * elementsPerStep * 2)
}

/// As keys are packed: [group][step][pair].
@inline(never)
func packTokens(_ args: UnsafePointer<mla_pack_rows_args>) {
  let a = args.pointee
  packGroups(
    SourceRows(a.rows.unsafelyUnwrapped, stride: a.row_stride, dim: a.row_dim, count: a.num_rows),
    into: a.packed.unsafelyUnwrapped)
}

/// As sets of columns.
@inline(never)
func packWeights(_ args: UnsafePointer<mla_pack_rows_args>) {
  let a = args.pointee
  let rows = SourceRows(
    a.rows.unsafelyUnwrapped, stride: a.row_stride, dim: a.row_dim, count: a.num_rows)
  forEachSet(
    of: rows.count,
    at: a.packed.unsafelyUnwrapped.assumingMemoryBound(to: FloatVector.self),
    steps: steps(of: Int(a.row_dim))
  ) { first, set in packColumns(rows, from: first * lanes, into: set) }
}

/// Hands out the products of all tokens and weights: those of a group of tokens with a set of
/// weights as rows [token][vectorsPerSet]. The weights of a set stay in the L1 cache while all
/// tokens pass by.
@inline(__always)
func forEachProduct(
  of tokens: UnsafeRawPointer, _ numTokens: Int64, with weights: UnsafeRawPointer,
  _ numWeights: Int64, rowDim: Int64,
  _ body: (
    _ token: Int, _ firstVector: Int, _ set: ColumnSet, _ products: UnsafePointer<FloatVector>
  ) -> Void
) {
  let steps = steps(of: Int(rowDim))
  let groups = tokens.assumingMemoryBound(to: RowPair.self)
  let columns = UnsafeMutableRawPointer(mutating: weights)
    .assumingMemoryBound(to: FloatVector.self)
  withStackVectors { products in
    forEachSet(of: Int(numWeights), at: columns, steps: steps) { first, set in
      for token in stride(from: 0, to: Int(numTokens), by: rowsPerGroup) {
        multiplySet(set, groups + token / 2 * steps, into: products)
        body(token, first, set, products)
      }
    }
  }
}

/// One function, whatever is done with the products.
@inline(never)
private func multiplySet(
  _ set: ColumnSet, _ group: UnsafePointer<RowPair>,
  into products: UnsafeMutablePointer<FloatVector>
) {
  let out = UnsafeMutableRawPointer(products).assumingMemoryBound(to: Float.self)
  @inline(__always)
  func multiply<Columns: QueryRow>(
    _: Columns.Type, _ columns: UnsafePointer<FloatVector>, _ four: Int
  ) {
    MLAKernelsNEONBF16.multiply(
      Columns.self, columns, group, steps: set.steps, times: FloatVector(repeating: 1),
      into: out + four * 4, pitch: vectorsPerSet * lanes)
  }
  for index in 0..<set.panels {
    let panel = set.panel(index)
    if panel.fours == Row3.width {
      multiply(Row3.self, panel.start, panel.first)
    } else {
      multiply(Row5.self, panel.start, panel.first)
    }
  }
}

@inline(never)
func project(_ args: UnsafePointer<mla_project_args>) {
  let a = args.pointee
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: project(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: project(Float16Format.self, a)
  default: project(Float32Format.self, a)
  }
}

@inline(__always)
private func project<Format: ElementFormat>(_: Format.Type, _ a: mla_project_args) {
  forEachProduct(
    of: a.tokens.unsafelyUnwrapped, a.num_tokens, with: a.weights.unsafelyUnwrapped,
    a.num_weights, rowDim: a.row_dim
  ) { token, first, weights, products in
    for row in 0..<min(rowsPerGroup, Int(a.num_tokens) - token) {
      let out = a.out.unsafelyUnwrapped + (token + row) * Int(a.out_stride) * Format.bytes
      for vector in 0..<weights.vectors {
        let weight = (first + vector) * lanes
        storeTail(
          Format.self, products[row * vectorsPerSet + vector], out + weight * Format.bytes,
          Int(a.num_weights) - weight)
      }
    }
  }
}
