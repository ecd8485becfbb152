import MLAShims

// A multiplication takes two rows of four bf16 and two columns of as many, and adds to the
// 2 x 2 of fp32 that they have. Its sums are rounded to odd, and subnormal numbers are 0,
// whatever the thread's rounding: cores that can do otherwise do so by a bit of FPCR, which is 0
// in the library's own floating-point state.

/// Two registers of Arm's.
typealias FloatVector = SIMD8<Float>
@inline(__always) var lanes: Int { FloatVector.scalarCount }

/// Two rows of four bf16: a register.
typealias RowPair = SIMD8<UInt16>

/// Elements of a dot product that a multiplication takes.
@inline(__always) var elementsPerStep: Int { 4 }

/// Vectors of that many elements or columns.
@inline(__always)
func vectors(of count: Int) -> Int { (count + lanes - 1) / lanes }

/// Steps in a row of that many elements. It is packed a vector at a time.
@inline(__always)
func steps(of elements: Int) -> Int { vectors(of: elements) * 2 }

/// Rows that lie together.
@inline(__always) var rowsPerGroup: Int { 8 }
@inline(__always) var pairsPerGroup: Int { rowsPerGroup / 2 }

/// Most vectors of queries whose softmax is one.
@inline(__always) var vectorsPerPanel: Int { 3 }

/// Most vectors of values or weights that lie together (see `ColumnSet`).
@inline(__always) var vectorsPerSet: Int { 5 }

/// Two panels: each block of keys and values is fetched half as often.
@inline(__always) var queryTile: Int { 2 * vectorsPerPanel * lanes }

/// Twice what fp32 operands have: outputs are loaded and stored once for each block.
@inline(__always) var keyBlock: Int { 128 }
