import MLAKernelABI

/// What calls for the same queries keep beside their registers:
///
///     panels     for each `queryTile` queries their columns and outputs, as in
///                `TileScratch`, and what is known of their softmax, [3][width]
///     scores, constants, square   as there, of the panel that is worked on
///     block      what `RowBlock` makes of rows
struct RowsScratch {
  private let start: UnsafeMutablePointer<FloatVector>
  private let columnVectors: Int
  private let outputVectors: Int
  private let shared: UnsafeMutablePointer<FloatVector>
  let block: UnsafeMutableRawPointer

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ dims: mla_kernel_dims, queries: Int) {
    self.start = start.assumingMemoryBound(to: FloatVector.self)
    columnVectors = operandSteps(dims) * vectorsPerPanel
    outputVectors = queryTile * ValuePanels(dims).vectors
    let panels = (queries + queryTile - 1) / queryTile
    shared = self.start + panels * (columnVectors + outputVectors + 3 * vectorsPerPanel)
    let end = shared + ((keyBlock + 3) * vectorsPerPanel + lanes)
    // A line may be wider than a vector.
    block = UnsafeMutableRawPointer(end).alignedUp(toMultipleOf: 64)
  }

  @inline(__always)
  func tile(_ panel: Int, width: Int) -> TileScratch {
    let columns = columns(panel)
    let scores = shared
    let constants = scores + keyBlock * vectorsPerPanel
    return TileScratch(
      width: width, columns: columns, scores: scores, outputs: columns + columnVectors,
      constants: constants, square: constants + 3 * vectorsPerPanel)
  }

  @inline(__always)
  func softmax(_ panel: Int) -> UnsafeMutablePointer<FloatVector> {
    columns(panel) + (columnVectors + outputVectors)
  }

  @inline(__always)
  private func columns(_ panel: Int) -> UnsafeMutablePointer<FloatVector> {
    start + panel * (columnVectors + outputVectors + 3 * vectorsPerPanel)
  }
}

@inline(never)
func rowsScratchBytes(_ dims: mla_kernel_dims, _ queries: Int64) -> Int64 {
  let start = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
  let scratch = RowsScratch(start, dims, queries: Int(queries))
  return Int64(scratch.block - start + (RowBlock.bytes(dims) + 63) / 64 * 64)
}
