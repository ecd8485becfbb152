/// Attention of a ragged batch as cuDNN is told of it: what stays from batch to batch.
struct CuDNNAttention: Equatable, Sendable {
  /// Of [rows, heads, width], in elements; width contiguous.
  struct Rows: Equatable, Sendable {
    let rowStride: Int
    let headStride: Int
  }

  /// Of one batch; or the most that batches may have.
  struct Sizes: Equatable, Sendable {
    var requests: Int
    /// Of the longest request.
    var queries: Int
    var keys: Int
    /// Of lse, in elements.
    var lseHeadStride: Int
  }

  /// Which of its request's keys a query sees.
  enum Mask: String, Sendable {
    case none
    /// Query i those up to the ith.
    case topLeft
    /// The last query those up to the last, the one before up to the one before, and so on.
    case bottomRight

    /// Requests that are masked have no more queries than keys.
    var showsEveryQueryAKey: Bool { self != .none }
  }

  let type: CuDNN.DataType
  let heads: Int
  let qkHeadDim: Int
  let vHeadDim: Int
  let q: Rows
  let k: Rows
  let v: Rows
  let out: Rows
  let mask: Mask
  let givesLSE: Bool
}

extension CuDNNAttention {
  /// All that tells one from another, for names.
  func text(_ sizes: Sizes) -> String {
    let strides = [q, k, v, out].map { "\($0.rowStride)/\($0.headStride)" }.joined(separator: " ")
    return "\(type.rawValue) \(heads) x \(qkHeadDim)/\(vHeadDim), \(strides), \(mask.rawValue) \(givesLSE), "
      + "\(sizes.requests) x \(sizes.queries) on \(sizes.keys) by \(sizes.lseHeadStride)"
  }

  /// The tensors, by their ids.
  enum Tensor: Int64, CaseIterable {
    case q = 1
    case k, v, out, lse, queryOffsets, keyOffsets
    /// Numbers of the host's.
    case scale, maskValue
    /// What is between operations.
    case scores, unmasked, masked, weights
  }

  struct Layout {
    let dimensions: SIMD4<Int64>
    let strides: SIMD4<Int64>
  }

  /// Those in memory of the device.
  var deviceTensors: [Tensor] {
    [.q, .k, .v, .out, .queryOffsets, .keyOffsets] + (givesLSE ? [.lse] : [])
  }

  func layout(of tensor: Tensor, _ sizes: Sizes) -> Layout {
    switch tensor {
    case .q: layout(q, sizes, sizes.queries, qkHeadDim)
    case .k: layout(k, sizes, sizes.keys, qkHeadDim)
    case .v: layout(v, sizes, sizes.keys, vHeadDim)
    case .out: layout(out, sizes, sizes.queries, vHeadDim)
    case .lse:
      layout(Rows(rowStride: 1, headStride: sizes.lseHeadStride), sizes, sizes.queries, 1)
    case .queryOffsets, .keyOffsets:
      Layout(dimensions: [Int64(sizes.requests) + 1, 1, 1, 1], strides: [1, 1, 1, 1])
    case .scale, .maskValue:
      Layout(dimensions: [1, 1, 1, 1], strides: [1, 1, 1, 1])
    case .scores, .unmasked, .masked, .weights:
      layout(
        Rows(rowStride: sizes.keys, headStride: sizes.queries * sizes.keys), sizes, sizes.queries,
        sizes.keys)
    }
  }

  /// [requests, heads, rows, width]
  private func layout(_ tensor: Rows, _ sizes: Sizes, _ rows: Int, _ width: Int) -> Layout {
    // Where offsets say where a request is, its stride is none that counts.
    let ofRequest = max(rows * tensor.rowStride, heads * tensor.headStride)
    return Layout(
      dimensions: [Int64(sizes.requests), Int64(heads), Int64(rows), Int64(width)],
      strides: [Int64(ofRequest), Int64(tensor.headStride), Int64(tensor.rowStride), 1])
  }

  /// The offsets that say where a request's rows are, and the elements that they count in.
  func raggedness(of tensor: Tensor) -> (offsets: Tensor, multiplier: Int)? {
    switch tensor {
    case .q: (.queryOffsets, q.rowStride)
    case .k: (.keyOffsets, k.rowStride)
    case .v: (.keyOffsets, v.rowStride)
    case .out: (.queryOffsets, out.rowStride)
    case .lse: (.queryOffsets, 1)
    default: nil
    }
  }

  func dataType(of tensor: Tensor) -> CuDNN.DataType {
    switch tensor {
    case .q, .k, .v, .out: type
    case .queryOffsets, .keyOffsets: .int32
    default: .float32
    }
  }
}
