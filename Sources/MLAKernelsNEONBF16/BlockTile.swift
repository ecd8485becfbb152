import MLAShims

/// Products of four rows, a pair in each `Row`, with as many fours of columns, in blocks of 2 x 2.
/// A four of a pair is two registers. As many of these are worked on together as cover the latency
/// of a multiplication, five cycles of four pipelines:
///
///     fours of columns       2    3    5
///     of these together      3    2    1
///     registers of sums     24   24   20   of 32, beside those of columns and rows
struct BlockTile<Row: QueryRow> {
  var r0: Row
  var r1: Row

  @inline(__always) static var zero: BlockTile {
    let row = Row.repeating(FloatVector(repeating: 0))
    return BlockTile(r0: row, r1: row)
  }

  /// Pairs `stride` vectors apart.
  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>, stride: Int) -> BlockTile {
    BlockTile(r0: Row.load(p), r1: Row.load(p + stride))
  }

  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>, stride: Int) {
    r0.store(p)
    r1.store(p + stride)
  }

  /// One step.
  @inline(__always)
  mutating func addDot(_ columns: Row, _ rows: UnsafePointer<RowPair>) {
    r0 = r0.combined(columns) { mla_dot_bf16_blocks(rows[0], $1, $0) }
    r1 = r1.combined(columns) { mla_dot_bf16_blocks(rows[1], $1, $0) }
  }

  /// The same, of row r with the first `count(r)` elements of each column alone.
  @inline(__always)
  mutating func addDot(
    _ columns: Row, _ rows: UnsafePointer<RowPair>, _ count: (_ row: Int) -> Int
  ) {
    r0 = Self.adding(to: r0, columns, rows[0], count(0), count(1))
    r1 = Self.adding(to: r1, columns, rows[1], count(2), count(3))
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
    return BlockTile(r0: scaled(r0, 0), r1: scaled(r1, 2))
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
  }
}

// The inner loops of every product: rows, `stride` pairs from one step to the next, against as
// many fours of columns as a `Row` has.

@inline(__always)
func accumulate<Row: QueryRow>(
  _ sums: inout BlockTile<Row>, _ columns: UnsafePointer<FloatVector>,
  _ rows: UnsafePointer<RowPair>, stride: Int, steps: Int
) {
  var column = columns
  var row = rows
  for _ in 0..<steps {
    sums.addDot(Row.load(column), row)
    column += Row.width
    row += stride
  }
}

/// Of a group, whose lower half lies `half` pairs behind the upper one.
@inline(__always)
func accumulate<Row: QueryRow>(
  _ upper: inout BlockTile<Row>, _ lower: inout BlockTile<Row>,
  _ columns: UnsafePointer<FloatVector>, _ rows: UnsafePointer<RowPair>, half: Int, stride: Int,
  steps: Int
) {
  var column = columns
  var row = rows
  for _ in 0..<steps {
    let fours = Row.load(column)
    upper.addDot(fours, row)
    lower.addDot(fours, row + half)
    column += Row.width
    row += stride
  }
}

/// Of three halves of groups anywhere.
@inline(__always)
func accumulate<Row: QueryRow>(
  _ sums: inout (BlockTile<Row>, BlockTile<Row>, BlockTile<Row>),
  _ columns: UnsafePointer<FloatVector>, _ first: UnsafePointer<RowPair>,
  _ second: UnsafePointer<RowPair>, _ third: UnsafePointer<RowPair>, stride: Int, steps: Int
) {
  var column = columns
  var (a, b, c) = (first, second, third)
  for _ in 0..<steps {
    let fours = Row.load(column)
    sums.0.addDot(fours, a)
    sums.1.addDot(fours, b)
    sums.2.addDot(fours, c)
    column += Row.width
    (a, b, c) = (a + stride, b + stride, c + stride)
  }
}
