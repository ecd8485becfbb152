import MLACore
import MLATestSupport
import XCTest

/// Runs a step on layers of one model and compares the results with float64, and
/// what lies around them with what lay there before.
func check(_ step: LayerStep, _ layers: [MLALayer], _ message: String) throws {
  let reference = step.reference()
  // Keys are rounded to the layer's dtype: a query that sees few of them has
  // an lse that is off by as much as its largest score is.
  let bounds: (out: Double, lse: Double) =
    switch step.model.format {
    case .bfloat16: (7e-3, 6e-3)
    case .float16: (2e-3, 2e-3)
    default: (5e-5, 2e-4)
    }
  for (i, layer) in layers.enumerated() {
    let result = try step.run(layer)
    let out = relativeL2(result.out.values, reference.out)
    let lse = maxDifference(result.lse.values, reference.lse)
    XCTAssertTrue(out <= bounds.out, "\(message), layer \(i): out \(out)")
    XCTAssertTrue(lse <= bounds.lse, "\(message), layer \(i): lse \(lse)")
    XCTAssertTrue(result.out.surroundingsAreIntact, message)
    XCTAssertTrue(result.lse.surroundingsAreIntact, message)
  }
}
