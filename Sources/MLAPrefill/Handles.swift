import MLACore

// What C holds of an object: an opaque pointer that owns one reference.

func retainedHandle(_ object: some AnyObject) -> OpaquePointer {
  OpaquePointer(Unmanaged.passRetained(object).toOpaque())
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
