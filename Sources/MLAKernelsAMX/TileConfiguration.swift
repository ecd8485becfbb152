import MLAShims

/// Every tile is 16 rows of 64 bytes: what is smaller is padded with zeros.
@inline(never)
func configureTiles() {
  var config = SIMD64<UInt8>(repeating: 0)
  config[0] = 1  // the palette with tiles
  for tile in 0..<8 {
    config[16 + 2 * tile] = 64  // bytes in a row, 16 bits
    config[48 + tile] = 16  // rows
  }
  withUnsafeBytes(of: &config) { mla_tile_configure($0.baseAddress.unsafelyUnwrapped) }
}

/// Idle tiles cost nothing to save when the thread is switched out.
@inline(never)
func releaseTiles() { mla_tile_release() }
