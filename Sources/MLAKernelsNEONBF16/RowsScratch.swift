import MLAKernelABI

@inline(__always)
func panels(of queries: Int) -> Int {
  (queries + vectorsPerPanel * lanes - 1) / (vectorsPerPanel * lanes)
}

/// What calls for the same queries keep beside their registers:
///
///     panels    for each its own part of a `TileScratch`, and what is known of its softmax,
///               [3][width]
///     shared    the other part, of the panel that is worked on
///     block     rows of a call
struct RowsScratch {
  private let start: UnsafeMutableRawPointer
  private let dims: mla_kernel_dims
  private let ownBytes: Int
  private let shared: UnsafeMutableRawPointer
  private let packed: UnsafeMutableRawPointer

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ dims: mla_kernel_dims, queries: Int) {
    (self.start, self.dims) = (start, dims)
    let ends = TileScratch(start, dims, width: vectorsPerPanel).ends
    ownBytes = UnsafeMutableRawPointer(ends.0) - start
    shared = start + panels(of: queries) * (ownBytes + Self.softmaxBytes)
    let sharedBytes = UnsafeMutableRawPointer(ends.1) - UnsafeMutableRawPointer(ends.0)
    packed = (shared + sharedBytes).alignedUp(toMultipleOf: 64)
  }

  @inline(__always)
  func tile(_ panel: Int, width: Int) -> TileScratch {
    TileScratch(own(panel), shared: shared, dims, width: width)
  }

  @inline(__always)
  func softmax(_ panel: Int) -> UnsafeMutablePointer<FloatVector> {
    (own(panel) + ownBytes).assumingMemoryBound(to: FloatVector.self)
  }

  @inline(__always) var block: PackedBlock { PackedBlock(packed, dims) }

  @inline(__always)
  private func own(_ panel: Int) -> UnsafeMutableRawPointer {
    start + panel * (ownBytes + Self.softmaxBytes)
  }

  @inline(__always)
  private static var softmaxBytes: Int {
    3 * vectorsPerPanel * MemoryLayout<FloatVector>.stride
  }

  @inline(__always) var bytes: Int { packed - start + block.bytes }
}

@inline(never)
func rowsScratchBytes(_ dims: mla_kernel_dims, _ queries: Int64) -> Int64 {
  let start = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
  return Int64(RowsScratch(start, dims, queries: Int(queries)).bytes)
}
