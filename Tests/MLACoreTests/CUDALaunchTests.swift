import CMLAPrefill
import MLACUDAKernels
import XCTest

@testable import MLACore

/// What the driver is handed, and what is made of what it says.
final class CUDALaunchTests: XCTestCase {
  private func view(_ type: ElementType, _ shape: Extents, _ strides: Extents, at address: UInt)
    -> TensorView
  {
    TensorView(type: type, shape: shape, strides: strides, address: address)
  }

  private func arguments(out: ElementType = .bfloat16, lse: Bool = true) -> RunArguments {
    var arguments = RunArguments(
      q: view(.bfloat16, [300, 2, 192], [400, 200, 1], at: 0x1000),
      k: view(.bfloat16, [300, 2, 192], [401, 201, 1], at: 0x2000),
      v: view(.bfloat16, [300, 2, 128], [402, 202, 1], at: 0x3000),
      out: view(out, [300, 2, 128], [403, 203, 1], at: 0x4000))
    if lse { arguments.lse = view(.float32, [2, 300], [404, 1], at: 0x5000) }
    return arguments
  }

  func testTensorsOfALaunch() {
    let launch = CUDAAttentionLaunch(arguments(), scaleLog2: 0.5, causal: .end)
    let seen = launch.parameter
    let expected: [(mla_cuda_rows, UInt, Int64, Int64)] = [
      (seen.q, 0x1000, 400, 200), (seen.k, 0x2000, 401, 201), (seen.v, 0x3000, 402, 202),
      (seen.out, 0x4000, 403, 203),
    ]
    for (rows, address, token, head) in expected {
      XCTAssertEqual(UInt(bitPattern: rows.data), address)
      XCTAssertEqual([rows.token_stride, rows.head_stride], [token, head])
    }
    XCTAssertEqual(UInt(bitPattern: seen.lse.data), 0x5000)
    XCTAssertEqual(seen.lse.head_stride, 404)
    XCTAssertEqual([seen.scale_log2, seen.out_multiplier], [0.5, 1])
    XCTAssertEqual([seen.is_causal, seen.out_type, seen.request_count], [1, Int32(MLA_DTYPE_BFLOAT16), 0])
    XCTAssertLessThanOrEqual(MemoryLayout<mla_cuda_attention>.size, 4096)
  }

  func testWithoutMaskAndLSE() {
    let launch = CUDAAttentionLaunch(
      arguments(out: .float8E4M3, lse: false), scaleLog2: 1, causal: .none)
    let seen = launch.parameter
    XCTAssertNil(seen.lse.data)
    XCTAssertEqual([seen.is_causal, seen.out_type], [0, Int32(MLA_DTYPE_FLOAT8_E4M3FN)])
  }

  func testRequestsOfALaunch() {
    var launch = CUDAAttentionLaunch(arguments(), scaleLog2: 1, causal: .none)
    launch.append(RequestSpan(queryBegin: 0, queryCount: 64, keyBegin: 0, keyCount: 7))
    launch.append(RequestSpan(queryBegin: 64, queryCount: 65, keyBegin: 7, keyCount: 0))
    launch.append(RequestSpan(queryBegin: 129, queryCount: 1, keyBegin: 7, keyCount: 200))
    var seen = launch.parameter
    XCTAssertEqual(launch.tiles, 4)
    XCTAssertEqual(seen.request_count, 3)
    let requests = UnsafeBufferPointer(start: mla_cuda_requests(&seen), count: 3)
    XCTAssertEqual(requests.map(\.first_tile), [0, 1, 3])
    XCTAssertEqual(requests.map(\.query_row), [0, 64, 129])
    XCTAssertEqual(requests.map(\.query_count), [64, 65, 1])
    XCTAssertEqual(requests.map(\.key_row), [0, 7, 7])
    XCTAssertEqual(requests.map(\.key_count), [7, 0, 200])
    for _ in 3..<Int(MLA_CUDA_LAUNCH_REQUESTS) {
      XCTAssertFalse(launch.isFull)
      launch.append(RequestSpan(queryBegin: 130, queryCount: 1, keyBegin: 0, keyCount: 1))
    }
    XCTAssertTrue(launch.isFull)
    launch.removeRequests()
    XCTAssertEqual([launch.tiles, launch.isFull ? 1 : 0], [0, 0])
  }

  func testWhatTheDriverSays() {
    func error(_ result: Int32) -> MLAError {
      CUDAError(result, name: "CUDA_ERROR_X", text: "x happened").error(of: "cuCall")
    }
    let statuses: [(Int32, Int)] = [
      (2, MLA_ERROR_OUT_OF_MEMORY), (3, MLA_ERROR_UNSUPPORTED_HARDWARE),
      (100, MLA_ERROR_UNSUPPORTED_HARDWARE), (209, MLA_ERROR_UNSUPPORTED_HARDWARE),
      (700, MLA_ERROR_INTERNAL), (719, MLA_ERROR_INTERNAL),
    ]
    for (result, status) in statuses {
      XCTAssertEqual(error(result).status, mla_status(status), "\(result)")
      XCTAssert(error(result).message.hasPrefix("cuCall: CUDA_ERROR_X, x happened"))
    }
    XCTAssertEqual(
      CUDAError(12345, name: nil, text: nil).error(of: "cuCall").message,
      "cuCall: CUDA error 12345, unknown to the driver")
  }
}
