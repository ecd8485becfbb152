import Glibc

/// What attention to no keys gives: out 0, lse -inf.
enum KeylessResult {
  /// Writes all rows, used by a request or not.
  static func write(to out: TensorView, lse: TensorView?) {
    let headBytes = out.shape[2] * out.type.bytes
    ParallelLoop.runRows(out.shape[0], heads: out.shape[1]) { rows, head in
      for row in rows {
        // Zero bytes are 0 in every dtype.
        memset(out.row(row, head: head), 0, headBytes)
        lse?.lse(row, head: head).pointee = -.infinity
      }
    }
  }
}
