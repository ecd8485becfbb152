import MLAKernelABI
import MLAShims

/// Attention of a token's heads to rows that are keys and values of all of them: as
/// `attendTile`, but for what is packed. Rows that each panel of queries needs once are few:
/// they are copied into tiles as keys, and their values are the same numbers, two rows' side
/// by side. What is turned is the probabilities, of which there are fewer than of values;
/// outputs then lie as rows.
///
/// Numbers are split and rounded as they are in `attendTile`, so errors are the same.
@inline(never)
func attendRows<Operands: TileOperands>(
  _: Operands.Type, _ args: UnsafePointer<mla_attend_rows_args>
) {
  let a = args.pointee
  let call = RowsCall<Operands>(a)
  if a.is_first != 0 { call.tiles.preparePanels() }
  if a.num_rows > 0 {
    call.packRows()
    call.attend()
  }
  if a.out != nil { call.writePartials() }
}

/// Most rows of a call, with which keys, values and the outputs of four panels stay in the L2
/// cache.
@inline(__always)
func rowBlock<Operands: TileOperands>(_: Operands.Type) -> Int { Operands.parts == 1 ? 256 : 128 }

@inline(never)
func rowsScratchBytes<Operands: TileOperands>(
  _: Operands.Type, _ dims: mla_kernel_dims, _ queries: Int64
) -> Int64 {
  let start = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
  let layout = PackedLayout(dims, parts: Operands.parts, blockKeys: rowBlock(Operands.self))
  let panels = (Int(queries) + panelQueries - 1) / panelQueries
  return Int64(
    layout.bytes + turnedBytes(layout) + TileScratch(start, layout).bytes(panels: panels))
}

@inline(__always)
private func turnedBytes(_ layout: PackedLayout) -> Int { layout.groups * layout.valueGroupBytes }

/// A call's rows as a block of packed keys. It lies before the panels' probabilities as they
/// are turned, one panel's at a time, and the scratch of a tile.
private struct RowsCall<Operands: TileOperands> {
  let args: mla_attend_rows_args
  let tiles: TileCall<Operands>
  private let block: UnsafeMutableRawPointer

  @inline(__always)
  init(_ a: mla_attend_rows_args) {
    args = a
    block = a.scratch.unsafelyUnwrapped
    let layout = PackedLayout(a.dims, parts: Operands.parts, blockKeys: rowBlock(Operands.self))
    var tile = mla_attend_args()
    tile.dims = a.dims
    tile.q = a.q
    tile.q_stride = a.q_stride
    tile.num_queries = a.num_queries
    tile.key_end = a.num_rows
    tile.causal_offset = Int64.max / 2
    tile.scale = a.scale
    tile.format = a.format
    tile.out = UnsafeMutableRawPointer(a.out)
    tile.out_stride = a.out_stride
    tile.scratch = block + (layout.bytes + turnedBytes(layout))
    tiles = TileCall(tile, layout)
  }

  private var layout: PackedLayout { tiles.layout }
  private var groups: Int { (Int(args.num_rows) + groupKeys - 1) / groupKeys }

  /// The last group is filled up with zeros.
  @inline(__always)
  func packRows() {
    let dim = layout.depthSteps * 32
    for group in 0..<groups {
      for i in 0..<groupKeys {
        let row = group * groupKeys + i
        packLeftRow(
          Operands.self, row < Int(args.num_rows) ? args.rows.unsafelyUnwrapped[row] : nil, i,
          dim: dim, into: block + group * layout.keyGroupBytes)
      }
      pairValues(group)
    }
  }

  /// Values are right operands, pairs of two rows' numbers: of even dims in a step's first tile,
  /// of odd ones in the second, so that none has to change its lane.
  @inline(__always)
  private func pairValues(_ group: Int) {
    for step in 0..<layout.valueSteps {
      for part in 0..<Operands.parts {
        let values =
          block + (layout.valuesOffset(step: step, group: group) + part * partBytes)
        for pair in 0..<pairsPerGroup {
          let rows = block + layout.keyOffset(step: step, part: part, group: group, row: 2 * pair)
          let (first, second) = (mla_bits(mla_load_f32(rows)), mla_bits(mla_load_f32(rows + 64)))
          mla_store_f32(
            values + pair * 64, mla_from_bits((first & 0xffff) | (second &<< 16)))
          mla_store_f32(
            values + (tileBytes + pair * 64),
            mla_from_bits((first &>> 16) | (second & 0xffff_0000)))
        }
      }
    }
  }

  @inline(__always)
  func attend() {
    var previous = PanelPass.none
    for panel in 0..<tiles.panels {
      let pass = PanelPass(
        panel: panel, firstKey: 0, groups: groups, wholeGroups: groups,
        isFirst: args.is_first != 0, block: UnsafeRawPointer(block),
        probabilities: tiles.scratch.probabilities(panel))
      // Panels after the first find it fetched.
      let chunks = panel > 0 ? 0 : groups * tiles.groupProducts
      var lines = RowLines(next: NextRows(args, chunks: chunks))
      tiles.run(RowValues.self, pass, after: previous, prefetching: &lines)
      previous = pass
    }
    var idle = NoWork()
    RowValues.accumulate(AnyPanels.self, previous, of: tiles, besides: &idle)
  }

  @inline(__always)
  func writePartials() {
    let dim = Int(args.dims.v_head_dim)
    for panel in 0..<tiles.panels {
      let outputs = tiles.scratch.panel(panel).outputs.assumingMemoryBound(to: FloatVector.self)
      for query in 0..<tiles.queries(of: panel) {
        let out =
          args.out.unsafelyUnwrapped + (panel * panelQueries + query) * Int(args.out_stride)
        for step in 0..<layout.valueSteps {
          let from = outputs + (step * panelQueries + query) * 2
          let (target, count) = (UnsafeMutableRawPointer(out + step * 32), dim - step * 32)
          storeTail(Float32Format.self, mla_interleave_low(from[0], from[1]), target, count)
          if count > lanes {
            storeTail(
              Float32Format.self, mla_interleave_high(from[0], from[1]), target + 64,
              count - lanes)
          }
        }
      }
      tiles.writeStatistics(panel)
    }
  }
}

/// The next call's rows. What is shared source cannot conform itself: what tells of such a type
/// would allocate.
private struct RowLines: LinesAhead {
  var next: NextRows
  @inline(__always) mutating func step() { next.fetch() }
}

/// Values as they lie in rows, and outputs [32 dims][query], of even dims, then of odd ones:
/// O += P V.
private enum RowValues: ValueForm {
  @inline(__always)
  static func accumulate<Panels: PanelHalves, Operands: TileOperands, Work: CompanionWork>(
    _: Panels.Type, _ pass: PanelPass, of call: TileCall<Operands>, besides work: inout Work
  ) {
    if pass.groups == 0 { return }
    let layout = call.layout
    let outputs = call.scratch.panel(pass.panel).outputs
    let turned = UnsafeMutableRawPointer(mutating: pass.block) + layout.bytes
    turnProbabilities(pass, of: call, into: turned)
    for step in 0..<layout.valueSteps {
      multiplyProbabilities(
        Operands.self, turned, pass.block + layout.valuesOffset(step: step, group: 0),
        halves: OperandHalves(left: Panels.columns(call.queries(of: pass.panel))),
        groups: pass.groups, onto: outputs + step * panelQueries * TileScratch.rowBytes,
        isFirst: pass.isFirst, besides: &work)
    }
  }

  /// A row of a tile becomes a query's probabilities of 32 keys.
  @inline(never)
  private static func turnProbabilities<Operands: TileOperands>(
    _ pass: PanelPass, of call: TileCall<Operands>, into turned: UnsafeMutableRawPointer
  ) {
    let spare = call.scratch.spare.assumingMemoryBound(to: FloatVector.self)
    let pitch = Operands.parts * TileScratch.rowBytes
    for group in 0..<pass.groups {
      for part in 0..<Operands.parts {
        for half in 0..<2 {
          let from =
            pass.probabilities
            + (group * pairsPerGroup * pitch + part * TileScratch.rowBytes + half * 64)
          let tile = turned + ((group * Operands.parts + part) * partBytes + half * tileBytes)
          transposeTile(
            from: UnsafeRawPointer(from).assumingMemoryBound(to: FloatVector.self),
            pitch: pitch / 64, tile.assumingMemoryBound(to: FloatVector.self), spare)
        }
      }
    }
  }

  @inline(never)
  static func rescale<Operands: TileOperands>(
    _ outputs: UnsafeMutablePointer<FloatVector>, by factors: UnsafePointer<FloatVector>,
    of call: TileCall<Operands>
  ) {
    let factors = UnsafeRawPointer(factors).assumingMemoryBound(to: Float.self)
    for row in 0..<call.layout.valueSteps * panelQueries {
      let factor = factors[row % panelQueries]
      outputs[2 * row] *= factor
      outputs[2 * row + 1] *= factor
    }
  }
}
