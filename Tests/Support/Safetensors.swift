import Foundation

/// A .safetensors file in memory: an 8-byte length, a JSON header, raw data.
public struct Safetensors {
  public struct Tensor {
    public let dtype: String
    public let shape: [Int]
    /// Aligned copy; lives as long as the file's `owner`.
    public let data: UnsafeMutableRawBufferPointer

    /// Elements of a F32, F16 or BF16 tensor.
    public var values: [Double] {
      guard let format else { return [] }
      return stride(from: 0, to: data.count, by: format.byteCount).map {
        format.value(bits: format.loadBits(UnsafeRawPointer(data.baseAddress! + $0)))
      }
    }

    /// Elements of an I32 tensor.
    public var integers: [Int32] {
      dtype == "I32" ? Array(data.bindMemory(to: Int32.self)) : []
    }

    public var format: ElementFormat? {
      ["F32": .float32, "F16": .float16, "BF16": .bfloat16][dtype]
    }
  }

  public struct Malformed: Error { public let reason: String }

  public let tensors: [String: Tensor]
  public let metadata: [String: String]
  private let storage: Storage

  /// Keeps every tensor's `data` alive.
  public var owner: AnyObject { storage }

  public init(path: String) throws {
    let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
    guard bytes.count >= 8 else { throw Malformed(reason: "no header") }
    let length = bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
    guard let length = Int(exactly: length), length <= bytes.count - 8 else {
      throw Malformed(reason: "header longer than the file")
    }
    let json = try JSONSerialization.jsonObject(with: bytes[8..<8 + length])
    guard let header = json as? [String: [String: Any]] else { throw Malformed(reason: "header") }
    let storage = Storage()
    var tensors: [String: Tensor] = [:]
    for (name, entry) in header where name != "__metadata__" {
      tensors[name] = try storage.tensor(name, entry, in: bytes.dropFirst(8 + length))
    }
    self.tensors = tensors
    self.storage = storage
    metadata = header["__metadata__"]?.compactMapValues { $0 as? String } ?? [:]
  }

  public subscript(name: String) -> Tensor {
    get throws {
      guard let tensor = tensors[name] else { throw Malformed(reason: "no tensor \(name)") }
      return tensor
    }
  }
}

extension Safetensors {
  /// Frees the copies when the last value that refers to them goes.
  fileprivate final class Storage {
    private var buffers: [UnsafeMutableRawBufferPointer] = []

    func tensor(_ name: String, _ entry: [String: Any], in data: Data) throws -> Tensor {
      guard let dtype = entry["dtype"] as? String, let shape = entry["shape"] as? [Int],
        let offsets = entry["data_offsets"] as? [Int], offsets.count == 2,
        0 <= offsets[0], offsets[0] <= offsets[1], offsets[1] <= data.count
      else { throw Malformed(reason: "entry of \(name)") }
      let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: offsets[1] - offsets[0], alignment: 64)
      buffers.append(buffer)
      let start = data.startIndex
      data.copyBytes(to: buffer, from: start + offsets[0]..<start + offsets[1])
      return Tensor(dtype: dtype, shape: shape, data: buffer)
    }

    deinit { buffers.forEach { $0.deallocate() } }
  }
}
