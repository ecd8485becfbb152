import MLAKernelABI

extension KVBProj {
  /// Brings rows into dense ones of a type, dequantized.
  func copy(
    _ rows: Range<Int>, to out: UnsafeMutableRawPointer, _ type: ElementType, _ table: KernelTable
  ) {
    let columns = weights.shape[1]
    func copy(_ part: Range<Int>, times scales: UnsafePointer<Float>?, group: Int) {
      table.convert(
        mla_convert_args(
          rows: weights.view.row(part.lowerBound, head: 0), row_stride: Int64(weights.strides[0]),
          num_rows: Int64(part.count), row_dim: Int64(columns), format: weights.type.rawValue,
          out_format: type.rawValue, multiplier: 1,
          out: out + (part.lowerBound - rows.lowerBound) * columns * type.bytes,
          out_stride: Int64(columns), scales: scales, scale_stride: 0, scale_group: Int64(group)))
    }
    guard let scales else { return copy(rows, times: nil, group: 0) }
    // Blocks are counted over all rows: a head's may begin and end within one.
    var row = rows.lowerBound
    while row < rows.upperBound {
      let block = row / scales.block.rows
      let end = min((block + 1) * scales.block.rows, rows.upperBound)
      copy(
        row..<end, times: scales.values.pointer + block * scales.blocksPerRow,
        group: scales.block.columns)
      row = end
    }
  }
}
