import MLAKernelABI

typealias FloatVector = SIMD16<Float>

/// Queries that share a pass over the keys: two tiles of them side by side.
@inline(__always) var panelQueries: Int { 32 }

/// Keys whose scores are computed together: two tiles, one above the other.
@inline(__always) var groupKeys: Int { 32 }

/// Neighbouring keys, whose probabilities share a row of a tile.
@inline(__always) var pairsPerGroup: Int { groupKeys / 2 }

/// Most queries of a call. All their panels pass over a block of keys before
/// the next block is touched, so that blocks come from the L2 cache.
@inline(__always) var queryTile: Int { 256 }

/// Keys of a packed block, and of one pass of a panel: its outputs are loaded
/// and stored once in that many keys.
@inline(__always) var keyBlock: Int { 512 }

/// A whole tile of 16 rows of 64 bytes.
@inline(__always) var tileBytes: Int { 1024 }

/// Two tiles: one part of 32 rows of an operand.
@inline(__always) var partBytes: Int { 2 * tileBytes }

/// How head dimensions divide into tiles, and where things lie in a packed
/// block. All tiles are left operands, contiguous, those of a step together:
///
///     keys    [group][depth step][part][2]   16 keys x 32 dims
///     values  [value step][group][part][2]   16 dims x 32 keys, transposed
struct PackedLayout {
  /// Numbers of bf16 whose sum an element is, see `TileOperands`.
  let parts: Int
  /// Most groups of keys of a block.
  let groups: Int
  /// Steps of 32 dims in a dot product of query and key.
  let depthSteps: Int
  /// Steps of 32 dims in a row of values.
  let valueSteps: Int

  @inline(__always)
  init(_ dims: mla_kernel_dims, parts: Int, blockKeys: Int = keyBlock) {
    self.parts = parts
    groups = blockKeys / groupKeys
    depthSteps = (Int(dims.qk_head_dim) + 31) / 32
    valueSteps = (Int(dims.v_head_dim) + 31) / 32
  }

  /// Bytes from a group of keys to the next.
  @inline(__always) var keyGroupBytes: Int { depthSteps * parts * partBytes }
  /// Where a part of 32 dims of a key lies.
  @inline(__always)
  func keyOffset(step: Int, part: Int, group: Int, row: Int) -> Int {
    group * keyGroupBytes + (step * parts + part) * partBytes + row / 16 * tileBytes
      + row % 16 * 64
  }
  /// Bytes from a group of values to the next, of the same 32 dims.
  @inline(__always) var valueGroupBytes: Int { parts * partBytes }
  /// Bytes from 32 dims of values to the next 32.
  @inline(__always) var valueStepBytes: Int { groups * valueGroupBytes }
  @inline(__always) var valuesOffset: Int { groups * keyGroupBytes }
  func valuesOffset(step: Int, group: Int) -> Int {
    valuesOffset + step * valueStepBytes + group * valueGroupBytes
  }
  @inline(__always) var bytes: Int { valuesOffset + valueSteps * valueStepBytes }
}

@inline(never)
func packedBlockBytes<Operands: TileOperands>(_: Operands.Type, _ dims: mla_kernel_dims) -> Int64 {
  Int64(PackedLayout(dims, parts: Operands.parts).bytes)
}
