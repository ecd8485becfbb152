import Glibc
import XCTest

@testable import MLACore

/// Plans that cuDNN makes for GPUs of which it is told the properties: `make test-cudnn`.
final class CuDNNPlanTests: XCTestCase {
  private func cuDNN() throws -> CuDNN {
    guard let file = getenv("MLA_TEST_CUDNN") else { throw XCTSkip("make test-cudnn has it") }
    do {
      return try CuDNN(DynamicLibrary(String(cString: file)))
    } catch let error as CuDNN.Failure {
      XCTFail(error.text)
      throw error
    }
  }

  private func properties(_ device: String, _ cuDNN: CuDNN) throws -> CuDNNDescriptor {
    let folder = try XCTUnwrap(getenv("MLA_TEST_CUDNN_DEVICES").map { String(cString: $0) })
    let file = try XCTUnwrap(fopen("\(folder)/\(device).json", "r"))
    defer { fclose(file) }
    var text = [UInt8](repeating: 0, count: 1 << 16)
    let count = fread(&text, 1, text.count, file)
    let properties = try CuDNNDescriptor(cuDNN, .deviceProperties)
    try properties.set(CuDNN.Attribute.Device.json, text, count: count)
    try properties.finalize()
    return properties
  }

  /// As vLLM has the tensors: v and keys of nope and v side by side.
  private func attention(
    _ type: CuDNN.DataType, heads: Int, _ qk: Int, _ v: Int, mask: CuDNNAttention.Mask,
    givesLSE: Bool
  ) -> CuDNNAttention {
    func rows(_ width: Int) -> CuDNNAttention.Rows {
      CuDNNAttention.Rows(rowStride: heads * width, headStride: width)
    }
    return CuDNNAttention(
      type: type, heads: heads, qkHeadDim: qk, vHeadDim: v, q: rows(qk), k: rows(qk),
      v: CuDNNAttention.Rows(rowStride: heads * (v + 128), headStride: v + 128), out: rows(v),
      mask: mask, givesLSE: givesLSE)
  }

  private static let masks: [CuDNNAttention.Mask] = [.topLeft, .bottomRight, .none]

  private static let dimensions = [(192, 128), (192, 256), (256, 256), (128, 128), (128, 64)]

  private func sizes(_ requests: Int, _ queries: Int, _ keys: Int) throws -> CuDNNAttention.Sizes {
    let sizes = CuDNNAttention.Sizes(
      requests: requests, queries: queries, keys: keys, lseHeadStride: requests * queries)
    return try XCTUnwrap(sizes.ofPlan)
  }

  /// The kernel of the plan and its workspace; throws where cuDNN refuses.
  private func make(
    _ cuDNN: CuDNN, _ attention: CuDNNAttention, _ sizes: CuDNNAttention.Sizes,
    _ device: CuDNNDescriptor
  ) throws -> String {
    let operation = CuDNNOperation.attention(attention, atMost: sizes)
    let plan = try CuDNNPlan.compile(cuDNN, operation, for: device)
    let serialised = try plan.serialised()
    let loaded = try CuDNNPlan.load(serialised, cuDNN, operation, for: device)
    XCTAssertEqual(loaded.workspaceBytes, plan.workspaceBytes)
    XCTAssertLessThanOrEqual(plan.workspaceBytes, CuDNNRun.Memory.bytes(sizes))
    // A batch may have less than a plan is for.
    let batch = CuDNNAttention.Sizes(requests: 3, queries: 77, keys: 99, lseHeadStride: 191)
    _ = try CuDNNPack.make(cuDNN, attention, batch, workspace: nil) { _ in
      UnsafeMutableRawPointer(bitPattern: 1 << 20)
    }
    return "\(kernel(of: serialised)), \(plan.workspaceBytes) bytes"
  }

  /// What is between `begin` and `behind` in its kernel's name.
  private func kernel(
    of serialised: FixedArray<UInt8>, from begin: String = "sdpa_", to behind: String = "_knob"
  ) -> Substring {
    let text = Array(serialised)
    func end(of word: String, from start: Int) -> Int? {
      let word = Array(word.utf8)
      return (start..<max(start, text.count - word.count)).first {
        text[$0..<$0 + word.count].elementsEqual(word)
      }.map { $0 + word.count }
    }
    guard let name = end(of: "kernelName", from: 0), let first = end(of: begin, from: name),
      let end = end(of: behind, from: first)
    else { return "?" }
    return Substring(decoding: text[first..<end - behind.utf8.count], as: UTF8.self)
  }

  func testPlansOfEveryDevice() throws {
    let cuDNN = try cuDNN()
    print("| cuDNN \(cuDNN.versionText) | heads of | new tokens | after context | context |")
    print("|---|---|---|---|---|")
    for device in ["h200", "b200", "a100", "rtx"] {
      let properties = try properties(device, cuDNN)
      for (qk, v) in Self.dimensions {
        let cells = try Self.masks.map { mask in
          let ofTypes = try [CuDNN.DataType.bfloat16, .float16].map { type in
            let attention = attention(type, heads: 16, qk, v, mask: mask, givesLSE: true)
            return try made(cuDNN, attention, sizes(8, 4096, 4096), properties)
          }
          return ofTypes[0] == ofTypes[1] ? ofTypes[0] : ofTypes.joined(separator: "; fp16: ")
        }
        print("| \(device) | \(qk)/\(v) | \(cells.joined(separator: " | ")) |")
        if (qk, v) == (192, 128) { XCTAssertFalse(cells.joined().contains("refused"), device) }
      }
    }
  }

  private func made(
    _ cuDNN: CuDNN, _ attention: CuDNNAttention, _ sizes: CuDNNAttention.Sizes,
    _ device: CuDNNDescriptor
  ) throws -> String {
    do {
      return try make(cuDNN, attention, sizes, device)
    } catch let failure as CuDNN.Failure {
      return "refused, \(failure.text)"
    }
  }

  /// DeepSeek's heads, for batches of every class of lengths.
  func testPlansOfEveryClass() throws {
    let cuDNN = try cuDNN()
    for device in ["h200", "b200"] {
      let properties = try properties(device, cuDNN)
      for mask in Self.masks {
        for (requests, queries, keys) in [
          (1, 100, 100), (64, 9000, 9000), (300, 200, 200), (4096, 5, 5), (4096, 100_000, 100_000),
          (20, 100, 70_000), (20, 3000, 100),
        ] where mask != .bottomRight || queries <= keys {
          let attention = attention(
            .bfloat16, heads: 128, 192, 128, mask: mask, givesLSE: mask != .none)
          let made = try make(cuDNN, attention, sizes(requests, queries, keys), properties)
          print("\(device) \(requests) x \(queries) on \(keys), \(mask): \(made)")
        }
      }
    }
  }

  /// Layers of DeepSeek's, whole and parts of their heads, in all numbers of rows that there are
  /// plans for.
  func testProjectionsOfEveryDevice() throws {
    let cuDNN = try cuDNN()
    print("| cuDNN \(cuDNN.versionText) | heads | rows: kernel |\n|---|---|---|")
    for device in ["h200", "b200", "a100", "rtx"] {
      let properties = try properties(device, cuDNN)
      for heads in [128, 16, 5] {
        let cells = try CuDNNProjection.rowsOfPlans(columns: heads * 256).map { rows in
          let ofTypes = try [CuDNN.DataType.bfloat16, .float16].map { type in
            let projection = CuDNNProjection(
              type: type, rows: rows, columns: heads * 256, depth: 512)
            return try make(cuDNN, projection, properties)
          }
          XCTAssertEqual(ofTypes[0], ofTypes[1])
          return "\(rows): \(ofTypes[0])"
        }
        print("| \(device) | \(heads) | \(cells.joined(separator: "; ")) |")
        XCTAssert(device != "h200" || !cells.joined().contains("sm80"), "slow kernels: \(cells)")
      }
    }
  }

  private func make(
    _ cuDNN: CuDNN, _ projection: CuDNNProjection, _ device: CuDNNDescriptor
  ) throws -> Substring {
    let plan = try CuDNNPlan.compile(cuDNN, .projection(projection), for: device)
    let serialised = try plan.serialised()
    let loaded = try CuDNNPlan.load(serialised, cuDNN, .projection(projection), for: device)
    // A layer has none for it.
    XCTAssertEqual([plan.workspaceBytes, loaded.workspaceBytes], [0, 0])
    _ = try CuDNNPack.make(cuDNN) { _ in UnsafeMutableRawPointer(bitPattern: 1 << 20) }
    return kernel(of: serialised, from: "native_", to: "\"")
  }

  func testWithoutCuBLASLt() throws {
    try XCTSkipIf(getenv("MLA_TEST_CUDNN_WITHOUT") == nil, "where it is there")
    let file = try XCTUnwrap(getenv("MLA_TEST_CUDNN").map { String(cString: $0) })
    do {
      let cuDNN = try CuDNN(DynamicLibrary(file))
      XCTAssertGreaterThanOrEqual(cuDNN.version, 92500)
      print("cuDNN \(cuDNN.versionText) needs no cuBLASLt")
    } catch let error as CuDNN.Failure {
      XCTAssert(error.text.contains("needs libcublasLt.so.12"), error.text)
      print(error.text)
    }
  }
}
