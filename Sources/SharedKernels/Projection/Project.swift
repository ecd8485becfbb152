import MLAKernelABI
import MLAShims

/// How many tokens stand side by side: chunks of up to `vectorsPerPanel` vectors, as even
/// as possible, each packed as [step][width].
struct TokenChunks {
  let vectors: Int
  let width: Int

  @inline(__always)
  init(_ tokens: Int64) {
    vectors = (Int(tokens) + lanes - 1) / lanes
    let chunks = (vectors + vectorsPerPanel - 1) / vectorsPerPanel
    width = (vectors + chunks - 1) / chunks
  }

  /// Vectors of the chunk that begins with vector `first`.
  @inline(__always)
  func width(from first: Int) -> Int { min(width, vectors - first) }
}

@inline(never)
func packedTokensBytes(_ rows: Int64, _ rowDim: Int64) -> Int64 {
  Int64(paddedToLanes(Int(rows)) * operandSteps(of: Int(rowDim)) * 4)
}

@inline(never)
func packedWeightsBytes(_ rows: Int64, _ rowDim: Int64) -> Int64 {
  Int64(paddedToLanes(Int(rows)) * operandSteps(of: Int(rowDim)) * 4)
}

@inline(__always)
func packTokens<Format: ElementFormat>(_: Format.Type, _ a: mla_pack_rows_args) {
  let steps = operandSteps(of: Int(a.row_dim))
  let elementBytes = Format.bytes / elementsPerOperand
  let strideBytes = Int(a.row_stride) * elementBytes
  let packed = a.packed.unsafelyUnwrapped.assumingMemoryBound(to: FloatVector.self)
  let chunks = TokenChunks(a.num_rows)
  withSquare { square in
    for vector in 0..<chunks.vectors {
      let first = vector / chunks.width * chunks.width
      let width = chunks.width(from: first)
      let columns = packed + (first * steps + vector - first)
      let (rows, row, count) = (a.rows.unsafelyUnwrapped, vector * lanes, Int(a.num_rows))
      turnRows(
        Format.self, of: rows + row * strideBytes, rowStride: strideBytes,
        rowBytes: Int(a.row_dim) * elementBytes, rows: count - row, steps: steps,
        ahead: rowsAhead(rows, from: row, of: count, rowStride: strideBytes), turning: square
      ) { step, column in
        columns[step * width] = column
      }
    }
  }
}

/// As keys are packed: panels [row / group][step][group].
@inline(__always)
func packWeights<Format: ElementFormat>(_: Format.Type, _ a: mla_pack_rows_args) {
  packPanels(
    Format.self, a.rows.unsafelyUnwrapped, rowStride: a.row_stride, rowDim: a.row_dim,
    rows: a.num_rows, into: a.packed.unsafelyUnwrapped.assumingMemoryBound(to: Float.self))
}

/// Weights in the outer loop: a panel of them stays in the L1 cache while all
/// tokens pass by.
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
  if a.num_tokens <= Int64(mostFewTokens) { return projectFewTokens(Format.self, a) }
  let chunks = TokenChunks(a.num_tokens)
  withStackVectors { products in
    var weight = 0
    while weight < Int(a.num_weights) {
      var vector = 0
      while vector < chunks.vectors {
        let width = chunks.width(from: vector)
        multiplyPanel(
          a.tokens.unsafelyUnwrapped, a.weights.unsafelyUnwrapped,
          steps: operandSteps(of: Int(a.row_dim)), weight: weight, vector: vector, width: width,
          into: products)
        writeProducts(Format.self, a, products, weight: weight, vector: vector, width: width)
        vector += chunks.width
      }
      weight += lanes
    }
  }
}

/// Products [lanes][vectorsPerPanel] of the `lanes` weights from `weight` on and the `width`
/// vectors of tokens from `vector` on: what reads them does not depend on `width`.
@inline(__always)
func multiplyPanel(
  _ tokens: UnsafeRawPointer, _ weights: UnsafeRawPointer, steps: Int, weight: Int, vector: Int,
  width: Int, into products: UnsafeMutablePointer<FloatVector>
) {
  let columns = tokens.assumingMemoryBound(to: FloatVector.self) + vector * steps
  let panel = weights.assumingMemoryBound(to: Float.self) + weight * steps
  switch width {
  case 3: multiplyPanel(Row3.self, columns, panel, steps: steps, into: products)
  case 2: multiplyPanel(Row2.self, columns, panel, steps: steps, into: products)
  default: multiplyPanel(Row1.self, columns, panel, steps: steps, into: products)
  }
}

/// One function for each width, whatever is done with the products: inlined, its copies
/// would be most of a module's projection code.
@inline(never)
private func multiplyPanel<Row: QueryRow>(
  _: Row.Type, _ columns: UnsafePointer<FloatVector>, _ panel: UnsafePointer<Float>, steps: Int,
  into products: UnsafeMutablePointer<FloatVector>
) {
  let none = Group<Row>.repeating(.repeating(FloatVector(repeating: 0)))
  var row = 0
  while Row.width == 1 && row + rowsPerGroup < lanes {
    var (sums, more) = (none, none)
    accumulate(
      &sums, &more, columns, stride: Row.width, panel + row * steps, pitch: rowsPerGroup * steps,
      steps: steps)
    sums.store(products + row * vectorsPerPanel, stride: vectorsPerPanel)
    more.store(products + (row + rowsPerGroup) * vectorsPerPanel, stride: vectorsPerPanel)
    row += 2 * rowsPerGroup
  }
  while row < lanes {
    var sums = none
    accumulate(&sums, columns, stride: Row.width, panel + row * steps, steps: steps)
    sums.store(products + row * vectorsPerPanel, stride: vectorsPerPanel)
    row += rowsPerGroup
  }
}

/// Turns products back into rows of tokens and writes them.
@inline(__always)
private func writeProducts<Format: ElementFormat>(
  _: Format.Type, _ a: mla_project_args, _ products: UnsafePointer<FloatVector>,
  weight: Int, vector: Int, width: Int
) {
  let rowBytes = Int(a.out_stride) * Format.bytes
  for column in 0..<width {
    let first = (vector + column) * lanes
    let out = a.out.unsafelyUnwrapped + (first * rowBytes + weight * Format.bytes)
    let rows = min(lanes, Int(a.num_tokens) - first)
    turnSquare(products + column, stride: vectorsPerPanel * lanes * 4) { row, turned in
      guard row < rows else { return }
      storeTail(Format.self, turned, out + row * rowBytes, Int(a.num_weights) - weight)
    }
  }
}
