import XCTest

@testable import MLACore

/// Which numbers of rows there are plans for.
final class CuDNNProjectionTests: XCTestCase {
  func testFewPlansEachWorkForAGPU() {
    for (columns, smallest) in [
      (1 << 20, 128), (32768, 128), (16384, 128), (16383, 256), (4096, 512), (11008, 256),
      (256, 8192), (8, 262_144),
    ] {
      let rows = CuDNNProjection.rowsOfPlans(columns: columns)
      XCTAssertEqual(rows, [smallest, 4 * smallest, 16 * smallest], "\(columns) columns")
    }
  }

  /// Two projections have one file only where they are one.
  func testFilesTellProjectionsApart() {
    func projection(
      _ type: CuDNN.DataType = .bfloat16, rows: Int = 128, columns: Int = 512, depth: Int = 64
    ) -> CuDNNOperation {
      .projection(CuDNNProjection(type: type, rows: rows, columns: columns, depth: depth))
    }
    let all = [
      projection(), projection(.float16), projection(rows: 512), projection(columns: 128),
      projection(rows: 512, columns: 128), projection(depth: 128),
    ]
    XCTAssertEqual(Set(all.map(\.text)).count, all.count)
  }
}
