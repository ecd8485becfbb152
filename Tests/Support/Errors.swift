/// ||actual - expected|| / ||expected||; 0 where both are zero, NaN stays NaN.
public func relativeL2(_ actual: [Double], _ expected: [Double]) -> Double {
  precondition(actual.count == expected.count)
  var (difference, norm) = (0.0, 0.0)
  for (a, e) in zip(actual, expected) {
    difference += (a - e) * (a - e)
    norm += e * e
  }
  if difference == 0 { return 0 }
  return (difference / norm).squareRoot()
}

/// Largest |actual - expected|; equal infinities do not differ, anything else
/// that is not finite differs infinitely.
public func maxDifference(_ actual: [Double], _ expected: [Double]) -> Double {
  precondition(actual.count == expected.count)
  var largest = 0.0
  for (a, e) in zip(actual, expected) where a != e {
    let difference = abs(a - e)
    largest = max(largest, difference.isFinite ? difference : .infinity)
  }
  return largest
}
