import MLAKernelABI
import MLAShims

/// Keys of a packed block: its scores against a panel stay in the L1 cache.
@inline(__always) var keyBlock: Int { 64 }

@inline(__always)
func paddedToLanes(_ n: Int) -> Int { (n + lanes - 1) / lanes * lanes }

/// Operands in a row of that many elements, padded so that squares can be turned.
@inline(__always)
func operandSteps(of elements: Int) -> Int {
  paddedToLanes((elements + elementsPerOperand - 1) / elementsPerOperand)
}

/// Operands in a query's or key's row.
@inline(__always)
func operandSteps(_ dims: mla_kernel_dims) -> Int { operandSteps(of: Int(dims.qk_head_dim)) }

/// One block of keys and values, as the register tile walks through them:
///
///     keys    [keyBlock / group][step][group]          step = operand of a key
///     values  [v_head_dim / panel][step][panel]        step = operand of keys
///
/// `group` neighbouring keys, and the vectors of a `panel` of value dimensions, lie
/// side by side, so that each step reads one short contiguous piece and the next
/// step the next one.
///
/// Values are filled with zeros up to a whole operand, for zero times a NaN left
/// behind is a NaN; scores of keys that do not exist are masked.
struct PackedBlock {
  let keys: UnsafeMutablePointer<Float>
  let values: UnsafeMutablePointer<Float>
  private let keyFloats: Int
  private let valueFloats: Int

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ dims: mla_kernel_dims) {
    keyFloats = keyBlock * operandSteps(dims)
    valueFloats = paddedToLanes(Int(dims.v_head_dim)) * keyBlock / elementsPerOperand
    keys = start.assumingMemoryBound(to: Float.self)
    values = keys + keyFloats
  }

  @inline(__always)
  var bytes: Int { (keyFloats + valueFloats) * 4 }

  /// Where the panel of value dimensions that begins with vector `first` lies.
  @inline(__always)
  func valuePanel(_ first: Int) -> UnsafeMutablePointer<Float> {
    values + first * keyBlock / elementsPerOperand * lanes
  }

  /// Hands out where a step's operands of each vector of value dimensions lie.
  @inline(__always)
  func forEachValue(
    step: Int, _ panels: ValuePanels,
    _ body: (_ vector: Int, _ p: UnsafeMutablePointer<Float>) -> Void
  ) {
    var first = 0
    while first < panels.vectors {
      let width = panels.width(from: first)
      let operands = valuePanel(first) + step * width * lanes
      for i in 0..<width { body(first + i, operands + i * lanes) }
      first += width
    }
  }
}

/// Values of a block's keys, by panels of their dimensions. No protocol of blocks: what tells
/// of a type that conforms would be shared by modules.
struct ValueColumns {
  let start: UnsafePointer<FloatVector>
  /// From a panel to the one that begins a vector later.
  let panelStride: Int
  /// From a step's vectors to the next one's; 0: they follow each other.
  let stepStride: Int

  /// The vectors of the panel that begins with vector `first`: step by step, `stride` from
  /// each to the next.
  @inline(__always)
  func panel(_ first: Int, width: Int) -> (start: UnsafePointer<FloatVector>, stride: Int) {
    (start + first * panelStride, stepStride == 0 ? width : stepStride)
  }
}

extension PackedBlock {
  @inline(__always)
  var valueColumns: ValueColumns {
    ValueColumns(
      start: UnsafeRawPointer(values).assumingMemoryBound(to: FloatVector.self),
      panelStride: keyBlock / elementsPerOperand, stepStride: 0)
  }
}

/// Vectors of value dimensions in panels as wide as the register tile; where that is
/// three, none of a single vector, which would starve it, if that can be helped.
///
///     vectors       1  2   3    4    5      6      7        8        9 ...
///     panels of 3   1  2   3   2+2  3+2    3+3    3+2+2    3+3+2    3+3+3
///               2   1  2  2+1  2+2  2+2+1  2+2+2  2+2+2+1  2+2+2+2
struct ValuePanels {
  let vectors: Int
  /// Vectors in panels of three; those of two follow.
  private let inThrees: Int

  @inline(__always)
  init(_ dims: mla_kernel_dims) {
    vectors = paddedToLanes(Int(dims.v_head_dim)) / lanes
    let pairs = vectors % 3 == 1 ? 2 : vectors % 3 == 2 ? 1 : 0
    inThrees = vectorsPerPanel < 3 ? 0 : max(0, vectors - 2 * pairs)
  }

  /// Of the panel that begins with vector `first`.
  @inline(__always)
  func width(from first: Int) -> Int { first < inThrees ? 3 : min(2, vectors - first) }

  /// The first vector of the panel that a vector is in, and its place behind that.
  @inline(__always)
  func place(of vector: Int) -> (first: Int, within: Int) {
    let (end, size) = vector < inThrees ? (vector, 3) : (vector - inThrees, 2)
    return (vector - end % size, end % size)
  }
}

@inline(never)
func packedBlockBytes(_ dims: mla_kernel_dims) -> Int64 {
  let bytes = PackedBlock(UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped, dims).bytes
  return Int64((bytes + 63) / 64 * 64)
}

/// Stores a vector as groups: lanes 0 ..< group into one panel, the next ones
/// into the panel `panelStride * group` floats further on.
@inline(__always)
func scatter(
  _ v: FloatVector, to p: UnsafeMutablePointer<Float>, panelStride: Int
) {
  if rowsPerGroup == lanes {
    mla_store_f32(p, v)
  } else {
    mla_store_low_half(p, v)
    mla_store_high_half(p + panelStride * rowsPerGroup, v)
  }
}

/// Reads up to `lanes` rows and hands out their columns, one operand of each
/// row at a time, and fetches as many from `ahead` on. Rows beyond `rows` are zero.
@inline(__always)
func turnRows<Format: ElementFormat>(
  _: Format.Type, of source: UnsafeRawPointer, rowStride: Int, rowBytes: Int, rows: Int,
  steps: Int, ahead: UnsafeRawPointer, turning square: UnsafeMutablePointer<FloatVector>,
  _ body: (_ step: Int, _ column: FloatVector) -> Void
) {
  var step = 0
  while step < steps {
    let offset = step * Format.bytes
    // Once for each line.
    if offset % 64 == 0 {
      for row in 0..<lanes { mla_prefetch(ahead + row * rowStride + offset) }
    }
    let isWhole = rows >= lanes && rowBytes - offset >= lanes * Format.bytes
    var (part, stride) = (source + offset, rowStride)
    // Elements that are no lanes yet, or that do not exist, are brought into a square.
    if Format.bytes != 4 || !isWhole {
      for row in 0..<lanes {
        square[row] =
          row < rows
          ? loadTail(Format.self, part + row * rowStride, rowBytes - offset)
          : FloatVector(repeating: 0)
      }
      (part, stride) = (UnsafeRawPointer(square), lanes * 4)
    }
    turnSquare(part, stride: stride) { body(step + $0, $1) }
    step += lanes
  }
}

/// Rows into panels [row / group][step][group], `lanes` rows at a time.
@inline(__always)
func packPanels<Format: ElementFormat>(
  _: Format.Type, _ source: UnsafeRawPointer, rowStride: Int64, rowDim: Int64, rows: Int64,
  next: UnsafeRawPointer? = nil, into panels: UnsafeMutablePointer<Float>
) {
  let steps = operandSteps(of: Int(rowDim))
  let elementBytes = Format.bytes / elementsPerOperand
  let strideBytes = Int(rowStride) * elementBytes
  withSquare { square in
    var row = 0
    while row < Int(rows) {
      let panel = panels + row * steps
      turnRows(
        Format.self, of: source + row * strideBytes, rowStride: strideBytes,
        rowBytes: Int(rowDim) * elementBytes, rows: Int(rows) - row, steps: steps,
        ahead: rowsAhead(source, from: row, of: Int(rows), rowStride: strideBytes, next: next),
        turning: square
      ) { step, column in
        scatter(column, to: panel + step * rowsPerGroup, panelStride: steps)
      }
      row += lanes
    }
  }
}

@inline(__always)
func packKeys<Format: ElementFormat>(
  _: Format.Type, _ a: mla_pack_args, into panels: UnsafeMutablePointer<Float>
) {
  packPanels(
    Format.self, a.k.unsafelyUnwrapped, rowStride: a.k_stride, rowDim: a.dims.qk_head_dim,
    rows: a.num_keys, next: a.next_k, into: panels)
}

/// A square's worth of vectors on the stack.
@inline(__always)
func withSquare(_ body: (UnsafeMutablePointer<FloatVector>) -> Void) {
  withUnsafeTemporaryAllocation(of: FloatVector.self, capacity: lanes) {
    body($0.baseAddress.unsafelyUnwrapped)
  }
}
