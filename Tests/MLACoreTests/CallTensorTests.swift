import CMLAPrefill
import XCTest

@testable import MLACore

/// What a tensor of a call is refused for, and what overlaps.
final class CallTensorTests: XCTestCase {
  /// [rows, 4, 8] of fp32.
  private func raw(_ address: Int, rows: Int64 = 3, stride: Int64 = 32) -> mla_tensor {
    mla_tensor(
      struct_size: UInt32(MemoryLayout<mla_tensor>.size), dtype: Int32(MLA_DTYPE_FLOAT32),
      data: UnsafeMutableRawPointer(bitPattern: address), device_type: Int32(MLA_DEVICE_CPU),
      device_id: 0, ndim: 3, reserved: 0, shape: (rows, 4, 8, 0), strides: (stride, 8, 1, 0))
  }

  private func tensor(_ name: String, _ raw: mla_tensor) throws -> CallTensor {
    try withUnsafePointer(to: raw) { try CallTensor($0, name: name, on: .cpu, rank: 3) }
  }

  func testDevices() throws {
    for (type, name) in [
      (MLA_DEVICE_CUDA, "CUDA"), (MLA_DEVICE_CUDA_HOST, "CUDA host"), (MLA_DEVICE_ROCM, "ROCm"),
      (MLA_DEVICE_ROCM_HOST, "ROCm host"), (77, "such"), (0, "such"), (-1, "such"),
    ] {
      var raw = raw(4096)
      raw.device_type = Int32(type)
      let error = mlaError { try self.tensor("k", raw) }
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_UNSUPPORTED_HARDWARE))
      XCTAssertEqual(
        error?.message,
        "k.device_type = \(type): this call runs on MLA_DEVICE_CPU (1), not on \(name) tensors")
    }
    var second = raw(4096)
    second.device_id = 1
    XCTAssertEqual(
      mlaError { try self.tensor("k", second) }?.message,
      "k.device_id = 1: must be 0 on the CPU")
    let device = Device.cpu
    XCTAssertEqual(
      mlaError { try device.check(stream: UnsafeMutableRawPointer(bitPattern: 16)) }?.message,
      "stream = 0x0000000000000010: must be NULL for CPU tensors")
    XCTAssertNoThrow(try device.check(stream: nil))
  }

  /// Of two tensors one behind the other, one in the other's gaps, and one that begins in
  /// the last element of the other.
  func testOverlaps() throws {
    let a = try tensor("a", raw(4096))
    XCTAssertEqual(a.bytes, 4096..<4096 + 384)
    for (other, overlaps) in [
      (raw(4096 + 384), false), (raw(4096 + 380), true), (raw(4096 - 384), false),
      (raw(4096 - 380), true), (raw(4096), true), (raw(4096, rows: 0), false),
    ] {
      let other = try tensor("b", other)
      XCTAssertEqual((try? a.requireNoOverlap(with: other)) == nil, overlaps, "\(other.bytes)")
      XCTAssertEqual((try? other.requireNoOverlap(with: a)) == nil, overlaps, "\(other.bytes)")
    }
    let spread = try tensor("a", raw(4096, stride: 64))
    let between = try tensor("b", raw(4096 + 128, stride: 64))
    XCTAssertNoThrow(try spread.requireNoOverlap(with: between))
    let late = try tensor("b", raw(4096 + 124, stride: 64))
    XCTAssertEqual(
      mlaError { try spread.requireNoOverlap(with: late) }?.message,
      "a.data = 0x1000: must not overlap b")
  }

  func testOutputsReachEachElementOnce() throws {
    for stride: Int64 in [0, 8, 24, 31] {
      let out = try tensor("out", raw(4096, stride: stride))
      XCTAssertEqual(
        mlaError { try out.requireOutput(apartFrom: nil, nil) }?.message,
        "out.strides = [\(stride), 8, 1]: with shape [3, 4, 8] elements of an output overlap")
    }
    for stride: Int64 in [32, 40] {
      XCTAssertNoThrow(
        try tensor("out", raw(4096, stride: stride)).requireOutput(apartFrom: nil, nil))
    }
  }

  /// Producers write strides there as they like.
  func testStridesWithoutElements() throws {
    for dimension in 0..<3 {
      for stride in [0, -1, 2, Int64.max, .min] {
        var raw = raw(0)
        (raw.strides.0, raw.strides.1, raw.strides.2) = (stride, stride, stride)
        switch dimension {
        case 0: raw.shape.0 = 0
        case 1: raw.shape.1 = 0
        default: raw.shape.2 = 0
        }
        let tensor = try tensor("q", raw)
        XCTAssertEqual(tensor.strides, [0, 0, 0])
        XCTAssertEqual(tensor.bytes, 0..<0)
      }
    }
  }

  func testAlignment() throws {
    for offset in 1...3 {
      XCTAssertEqual(
        mlaError { try self.tensor("q", raw(4096 + offset)) }?.message,
        "q.data = 0x\(String(4096 + offset, radix: 16)): must be aligned to its elements of 4 bytes")
    }
    var narrow = raw(4096 + 2)
    narrow.dtype = Int32(MLA_DTYPE_BFLOAT16)
    XCTAssertEqual(try tensor("q", narrow).bytes, 4098..<4098 + 192)
  }
}
