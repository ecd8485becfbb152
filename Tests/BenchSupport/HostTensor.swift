import CMLAPrefill
import Foundation
import MLATestSupport

/// A dense `[rows, heads, dim]` tensor (or `[rows, dim]` with heads 0).
public final class HostTensor: @unchecked Sendable {
  public let format: ElementFormat
  public let rows: Int
  public let heads: Int
  public let dim: Int
  public let data: UnsafeMutableRawPointer
  private let owner: AnyObject?

  public init(_ format: ElementFormat, rows: Int, heads: Int, dim: Int) {
    self.format = format
    (self.rows, self.heads, self.dim) = (rows, heads, dim)
    data = .allocate(
      byteCount: max(rows * max(heads, 1) * dim * format.byteCount, 1), alignment: 64)
    owner = nil
  }

  /// A view of a recorded tensor; rank 2 or 3.
  public init(_ recorded: Safetensors.Tensor, of file: Safetensors) throws {
    guard let format = recorded.format, [2, 3].contains(recorded.shape.count),
      let base = recorded.data.baseAddress
    else { throw MLALibrary.Failure(description: "tensor of shape \(recorded.shape)") }
    self.format = format
    rows = recorded.shape[0]
    heads = recorded.shape.count == 3 ? recorded.shape[1] : 0
    dim = recorded.shape[recorded.shape.count - 1]
    data = base
    owner = file.owner
  }

  deinit { if owner == nil { data.deallocate() } }

  public var count: Int { rows * max(heads, 1) * dim }

  func row(_ row: Int, head: Int) -> UnsafeMutableRawPointer {
    data + (row * heads + head) * dim * format.byteCount
  }

  public var values: [Double] {
    (0..<count).map { format.value(bits: format.loadBits(data + $0 * format.byteCount)) }
  }

  /// Rows `[rows, heads, dim]` picked from this tensor, in that order.
  public func gather(_ picked: [Int]) -> HostTensor {
    let result = HostTensor(format, rows: picked.count, heads: heads, dim: dim)
    let rowBytes = max(heads, 1) * dim * format.byteCount
    for (index, row) in picked.enumerated() {
      (result.data + index * rowBytes).copyMemory(from: data + row * rowBytes, byteCount: rowBytes)
    }
    return result
  }

  /// Normal values. Rows repeat a table from random places: drawing
  /// each value would take longer than the attention.
  public func fillNormal(_ random: inout SplitMix64, deviation: Double = 1) {
    let width = max(heads, 1) * dim * format.byteCount
    let period = 1 << 14
    let table = UnsafeMutableRawPointer.allocate(
      byteCount: width + period * format.byteCount, alignment: 64)
    defer { table.deallocate() }
    for index in 0..<period + width / format.byteCount {
      format.storeBits(format.bits(deviation * random.normal()), to: table + index * format.byteCount)
    }
    for row in 0..<rows {
      let start = random.int(0...period - 1) * format.byteCount
      (data + row * width).copyMemory(from: table + start, byteCount: width)
    }
  }

  public var float32Copy: HostTensor {
    let copy = HostTensor(.float32, rows: rows, heads: heads, dim: dim)
    for index in 0..<count {
      ElementFormat.float32.storeBits(
        Float(format.value(bits: format.loadBits(data + index * format.byteCount))).bitPattern,
        to: copy.data + index * 4)
    }
    return copy
  }

  /// As the C ABI wants it.
  public var view: mla_tensor {
    var tensor = mla_tensor()
    tensor.struct_size = structSize(tensor)
    tensor.dtype = format.rawValue
    tensor.data = data
    tensor.device_type = Int32(MLA_DEVICE_CPU)
    let (rows, heads, dim) = (Int64(rows), Int64(heads), Int64(dim))
    tensor.ndim = heads == 0 ? 2 : 3
    tensor.shape = heads == 0 ? (rows, dim, 0, 0) : (rows, heads, dim, 0)
    tensor.strides = heads == 0 ? (dim, 1, 0, 0) : (heads * dim, dim, 1, 0)
    return tensor
  }
}
