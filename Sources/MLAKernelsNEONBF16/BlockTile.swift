import MLAShims

/// The register tile: products of a group of rows, a pair in each `Row`, with as many fours of
/// columns, in blocks of 2 x 2. Six registers for a pair and three fours: 24, beside six of
/// columns and one of rows 31 of 32.
struct BlockTile<Row: QueryRow> {
  var r0: Row
  var r1: Row
  var r2: Row
  var r3: Row

  @inline(__always) static var zero: BlockTile {
    let row = Row.repeating(FloatVector(repeating: 0))
    return BlockTile(r0: row, r1: row, r2: row, r3: row)
  }

  /// Pairs `stride` vectors apart.
  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>, stride: Int) -> BlockTile {
    BlockTile(
      r0: Row.load(p), r1: Row.load(p + stride), r2: Row.load(p + 2 * stride),
      r3: Row.load(p + 3 * stride))
  }

  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>, stride: Int) {
    r0.store(p)
    r1.store(p + stride)
    r2.store(p + 2 * stride)
    r3.store(p + 3 * stride)
  }

  /// One step. The upper two pairs lie at `rows`, the lower two `half` behind them.
  @inline(__always)
  mutating func addDot(_ columns: Row, _ rows: UnsafePointer<RowPair>, half: Int) {
    r0 = r0.combined(columns) { mla_dot_bf16_blocks(rows[0], $1, $0) }
    r1 = r1.combined(columns) { mla_dot_bf16_blocks(rows[1], $1, $0) }
    r2 = r2.combined(columns) { mla_dot_bf16_blocks(rows[half], $1, $0) }
    r3 = r3.combined(columns) { mla_dot_bf16_blocks(rows[half + 1], $1, $0) }
  }

  /// The same, of row r with the first `count(r)` elements of each column alone.
  @inline(__always)
  mutating func addDot(
    _ columns: Row, _ rows: UnsafePointer<RowPair>, half: Int, _ count: (_ row: Int) -> Int
  ) {
    r0 = Self.adding(to: r0, columns, rows[0], count(0), count(1))
    r1 = Self.adding(to: r1, columns, rows[1], count(2), count(3))
    r2 = Self.adding(to: r2, columns, rows[half], count(4), count(5))
    r3 = Self.adding(to: r3, columns, rows[half + 1], count(6), count(7))
  }

  @inline(__always)
  private static func adding(
    to sums: Row, _ columns: Row, _ pair: RowPair, _ first: Int, _ second: Int
  ) -> Row {
    sums.combined(columns) { sums, columns in
      mla_rows_of(
        mla_dot_bf16_blocks(pair, mla_first_of_rows(columns, Int64(first)), sums),
        mla_dot_bf16_blocks(pair, mla_first_of_rows(columns, Int64(second)), sums))
    }
  }

  /// Row r times b[r].
  @inline(__always) func scaled(by b: UnsafePointer<Float>) -> BlockTile {
    @inline(__always) func scaled(_ row: Row, _ first: Int) -> Row {
      let factors = mla_rows_repeating(b + first)
      return row.mapped { $0 * factors }
    }
    return BlockTile(
      r0: scaled(r0, 0), r1: scaled(r1, 2), r2: scaled(r2, 4), r3: scaled(r3, 6))
  }

  /// As rows, `pitch` floats apart, times `scale`.
  @inline(__always)
  func storeRows(_ p: UnsafeMutablePointer<Float>, pitch: Int, times scale: FloatVector) {
    @inline(__always) func store(_ row: Row, _ first: Int) {
      var p = p + first * pitch
      _ = row.mapped { four in
        let rows = mla_swap_middle(four) * scale
        mla_store_low_half(p, rows)
        mla_store_high_half(p + pitch, rows)
        p += 4
        return four
      }
    }
    store(r0, 0)
    store(r1, 2)
    store(r2, 4)
    store(r3, 6)
  }
}

/// The inner loop of every product: a group's rows, `stride` pairs from one step to the next,
/// against as many fours of columns as a `Row` has.
@inline(__always)
func accumulate<Row: QueryRow>(
  _ sums: inout BlockTile<Row>, _ columns: UnsafePointer<FloatVector>,
  _ rows: UnsafePointer<RowPair>, stride: Int, half: Int, steps: Int
) {
  var column = columns
  var row = rows
  for _ in 0..<steps {
    sums.addDot(Row.load(column), row, half: half)
    column += Row.width
    row += stride
  }
}
