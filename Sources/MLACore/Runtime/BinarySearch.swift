/// The first of some numbers that a rule holds for, if it holds for all behind that
/// one and for the last.
func firstNumber(in range: Range<Int>, where holds: (Int) -> Bool) -> Int {
  var (low, high) = (range.lowerBound, range.upperBound - 1)
  while low < high {
    let middle = (low + high) / 2
    if holds(middle) { high = middle } else { low = middle + 1 }
  }
  return low
}

/// The last of some numbers that a rule holds for, if it holds for all before that one
/// and for the first.
func lastNumber(in range: Range<Int>, where holds: (Int) -> Bool) -> Int {
  var (low, high) = (range.lowerBound, range.upperBound - 1)
  while low < high {
    let middle = (low + high + 1) / 2
    if holds(middle) { low = middle } else { high = middle - 1 }
  }
  return low
}
