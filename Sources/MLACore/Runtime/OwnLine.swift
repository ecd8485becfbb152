/// Puts a value that several threads write all the time where nothing else is: it has a
/// cache line pair of its own, never moves and is never freed, as a thread may still be
/// about to look at it when its last user is gone.
func onOwnLine<Value: ~Copyable>(_ value: consuming Value) -> UnsafeMutablePointer<Value> {
  let memory = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 128)
  let place = memory.bindMemory(to: Value.self, capacity: 1)
  place.initialize(to: value)
  return place
}
