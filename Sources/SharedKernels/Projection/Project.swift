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
func project(_ args: UnsafePointer<mla_project_args>?) {
  let a = args.unsafelyUnwrapped.pointee
  let chunks = TokenChunks(a.num_tokens)
  var weight = 0
  while weight < Int(a.num_weights) {
    var vector = 0
    while vector < chunks.vectors {
      switch chunks.width(from: vector) {
      case 3: projectPanel(Row3.self, a, weight: weight, vector: vector)
      case 2: projectPanel(Row2.self, a, weight: weight, vector: vector)
      default: projectPanel(Row1.self, a, weight: weight, vector: vector)
      }
      vector += chunks.width
    }
    weight += lanes
  }
}

/// `lanes` weights against a chunk of tokens.
@inline(__always)
private func projectPanel<Row: QueryRow>(
  _: Row.Type, _ a: mla_project_args, weight: Int, vector: Int
) {
  withUnsafeTemporaryAllocation(of: FloatVector.self, capacity: lanes * (Row.width + 2)) {
    let products = $0.baseAddress.unsafelyUnwrapped
    let steps = operandSteps(of: Int(a.row_dim))
    multiplyPanel(
      Row.self, a.tokens.unsafelyUnwrapped, a.weights.unsafelyUnwrapped, steps: steps,
      weight: weight, vector: vector, into: products)
    switch Int(a.out_format) {
    case MLA_FORMAT_BFLOAT16:
      writeProducts(Row.self, BFloat16Format.self, a, products, weight: weight, vector: vector)
    case MLA_FORMAT_FLOAT16:
      writeProducts(Row.self, Float16Format.self, a, products, weight: weight, vector: vector)
    default:
      writeProducts(Row.self, Float32Format.self, a, products, weight: weight, vector: vector)
    }
  }
}

/// Products [lanes][width] of the `lanes` weights from `weight` on and the chunk
/// of tokens that begins with `vector`.
@inline(__always)
func multiplyPanel<Row: QueryRow>(
  _: Row.Type, _ tokens: UnsafeRawPointer, _ weights: UnsafeRawPointer, steps: Int, weight: Int,
  vector: Int, into products: UnsafeMutablePointer<FloatVector>
) {
  let columns = tokens.assumingMemoryBound(to: FloatVector.self) + vector * steps
  let panel = weights.assumingMemoryBound(to: Float.self) + weight * steps
  var row = 0
  while row < lanes {
    var sums = Group<Row>.repeating(.repeating(FloatVector(repeating: 0)))
    accumulate(&sums, columns, stride: Row.width, panel + row * steps, steps: steps)
    sums.store(products + row * Row.width, stride: Row.width)
    row += rowsPerGroup
  }
}

/// Turns products back into rows of tokens and writes them; behind the products
/// is room for turning.
@inline(__always)
private func writeProducts<Row: QueryRow, Format: ElementFormat>(
  _: Row.Type, _: Format.Type, _ a: mla_project_args,
  _ products: UnsafeMutablePointer<FloatVector>, weight: Int, vector: Int
) {
  let square = products + lanes * Row.width
  let rowBytes = Int(a.out_stride) * Format.bytes
  for column in 0..<Row.width {
    let turned = transpose(square, square + lanes) { products[$0 * Row.width + column] }
    let first = (vector + column) * lanes
    let out = a.out.unsafelyUnwrapped + (first * rowBytes + weight * Format.bytes)
    let rows = min(lanes, Int(a.num_tokens) - first)
    var row = 0
    while row < rows {
      storeTail(Format.self, turned[row], out + row * rowBytes, Int(a.num_weights) - weight)
      row += 1
    }
  }
}
