import CMLAPrefill
import XCTest

@testable import MLACore

/// Sizes that callers have been compiled with, which no library may forget.
final class ABIStructTests: XCTestCase {
  func testFirstSizes() {
    check(mla_cpu_info.self, 112)
    check(mla_tensor.self, 96, reserved: \.reserved)
    check(mla_backend_registration.self, 24, reserved: \.reserved)
    check(mla_selector_config.self, 48)
    check(mla_backend_info.self, 56)
    check(mla_context_chunk.self, 32, reserved: \.reserved)
    check(mla_prefill_metadata.self, 32, reserved: \.reserved)
    check(mla_context_plan_args.self, 40)
    check(mla_context_plan_chunk.self, 64)
    check(mla_backend_config.self, 40)
    check(mla_new_tokens_args.self, 80, reserved: \.reserved)
    check(mla_context_chunk_args.self, 80, reserved: \.reserved)
    check(mla_merge_args.self, 80, reserved: \.reserved)
    check(mla_backend_vtable.self, 104, reserved: \.reserved)
    check(mla_layer_config.self, 72)
    check(mla_layer_forward_args.self, 120, reserved: \.reserved)
    check(mla_concat_and_cache_args.self, 56, reserved: \.reserved)
    check(mla_gather_cache_args.self, 96, reserved: \.reserved)
    check(mla_attention_args.self, 128)
    check(mla_index_store_args.self, 56)
    check(mla_index_select_args.self, 168, reserved: \.reserved)
  }

  /// What a caller hands in to be filled: it keeps its size, and gets what it knows of.
  func testWritten() throws {
    let known = MemoryLayout<mla_backend_info>.size
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: known + 128, alignment: 8)
    defer { memory.deallocate() }
    let filled = memory.bindMemory(to: mla_backend_info.self).baseAddress
    var value = mla_backend_info()
    value.struct_size = UInt32(known)
    withUnsafeMutableBytes(of: &value) { bytes in
      for i in 4..<known { bytes[i] = UInt8(i) }
    }
    for size in [56, known, known + 64] {
      memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
      memory.storeBytes(of: UInt32(size), as: UInt32.self)
      try writeStruct(filled, name: "what", value: value)
      XCTAssertEqual(Int(memory.load(as: UInt32.self)), size)
      for i in 4..<memory.count {
        XCTAssertEqual(memory[i], i >= size ? 0xA5 : i >= known ? 0 : UInt8(i), "\(size): byte \(i)")
      }
    }
  }

  private func check<Struct: ABIStruct & BitwiseCopyable>(
    _: Struct.Type, _ first: Int, reserved: WritableKeyPath<Struct, UInt32>? = nil
  ) {
    let (known, alignment) = (MemoryLayout<Struct>.size, MemoryLayout<Struct>.alignment)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: known + 64, alignment: alignment)
    defer { memory.deallocate() }
    let filled = memory.bindMemory(to: Struct.self, capacity: 1)
    func message(size: Int, set byte: Int? = nil, reserved value: UInt32 = 0) -> String? {
      memory.initializeMemory(as: UInt8.self, repeating: 0, count: known + 64)
      if let reserved { filled.pointee[keyPath: reserved] = value }
      memory.storeBytes(of: UInt32(size), as: UInt32.self)
      if let byte { memory.storeBytes(of: 1, toByteOffset: byte, as: UInt8.self) }
      do throws(MLAError) {
        let read = try readStruct(filled, name: "what")
        XCTAssertEqual(Int(read.struct_size), size)
        return nil
      } catch { return error.message }
    }
    let sizes = stride(from: first, through: known + 64, by: alignment)
    for size in sizes { XCTAssertNil(message(size: size), "\(Struct.self), \(size)") }
    for size in [0, first - alignment, first + 1] {
      XCTAssertEqual(
        message(size: size),
        "what.struct_size = \(size): must be the size that the matching _INIT macro sets, "
          + "\(first) to 4096 and a multiple of \(alignment)")
    }
    XCTAssertEqual(
      message(size: known + alignment, set: known + 1),
      "what.struct_size = \(known + alignment): byte \(known + 1) is set, but this library knows "
        + "\(known) bytes only: it is older than its caller")
    guard reserved != nil else { return }
    XCTAssertEqual(message(size: known, reserved: 3), "what.reserved = 3: must be 0")
  }
}
