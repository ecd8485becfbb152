import MLACore

// What C holds of an object: an opaque pointer that owns one reference.

/// - Throws: where memory was short while it was made.
func retainedHandle(_ object: some AnyObject) throws(MLAError) -> OpaquePointer {
  try Shortage.check()
  return OpaquePointer(Unmanaged.passRetained(object).toOpaque())
}

/// - Parameter name: what the caller calls it, for messages.
func object<Object: AnyObject>(_ handle: OpaquePointer?, _ name: String) throws(MLAError) -> Object {
  guard let handle else { throw .null(name) }
  return Unmanaged<Object>.fromOpaque(UnsafeRawPointer(handle)).takeUnretainedValue()
}

/// Gives the reference back; NULL is nothing to give back.
func release<Object: AnyObject>(_ handle: OpaquePointer?, _ type: Object.Type) {
  guard let handle else { return }
  Arithmetic.own { Unmanaged<Object>.fromOpaque(UnsafeRawPointer(handle)).release() }
}
