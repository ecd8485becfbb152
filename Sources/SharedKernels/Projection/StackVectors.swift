/// Room for 64 vectors on the stack, where Swift's temporary allocations lie up to 1 KiB
/// only: a kernel that asks for memory could be refused it.
@inline(__always)
func withStackVectors(_ body: (UnsafeMutablePointer<FloatVector>) -> Void) {
  let v = FloatVector(repeating: 0)
  let eight = (v, v, v, v, v, v, v, v)
  var room = (eight, eight, eight, eight, eight, eight, eight, eight)
  withUnsafeMutableBytes(of: &room) {
    body($0.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: FloatVector.self))
  }
}
