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
///     values  [v_head_dim / group][step][group]        step = operand of keys
///
/// `group` neighbouring rows lie side by side, so that each step of a dot
/// product reads one short contiguous piece and the next step the next one.
///
/// A short block is filled up to whole vectors of keys: what attention computes on
/// behind the last key must be zero, for zero times a NaN left behind is a NaN.
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
/// row at a time. Rows beyond `rows` are zero.
@inline(__always)
func turnRows<Format: ElementFormat>(
  _: Format.Type, of source: UnsafeRawPointer, rowStride: Int, rowBytes: Int, rows: Int,
  steps: Int, turning square: UnsafeMutablePointer<FloatVector>,
  _ body: (_ step: Int, _ column: FloatVector) -> Void
) {
  var step = 0
  while step < steps {
    let offset = step * Format.bytes
    for row in 0..<lanes {
      mla_prefetch(source + (row + lanes) * rowStride + offset)
      square[row] =
        row < rows
        ? loadTail(Format.self, source + row * rowStride + offset, rowBytes - offset)
        : FloatVector(repeating: 0)
    }
    let turned = transpose(square, square + lanes)
    for i in 0..<lanes { body(step + i, turned[i]) }
    step += lanes
  }
}

/// Rows into panels [row / group][step][group], `lanes` rows at a time.
@inline(__always)
func packPanels<Format: ElementFormat>(
  _: Format.Type, _ source: UnsafeRawPointer, rowStride: Int64, rowDim: Int64, rows: Int64,
  into panels: UnsafeMutablePointer<Float>
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
        rowBytes: Int(rowDim) * elementBytes, rows: Int(rows) - row, steps: steps, turning: square
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
    rows: a.num_keys, into: panels)
}

/// Two squares' worth of vectors on the stack.
@inline(__always)
func withSquare(_ body: (UnsafeMutablePointer<FloatVector>) -> Void) {
  withUnsafeTemporaryAllocation(of: FloatVector.self, capacity: 2 * lanes) {
    body($0.baseAddress.unsafelyUnwrapped)
  }
}
