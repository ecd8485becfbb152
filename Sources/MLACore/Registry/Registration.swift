import CMLAPrefill

/// What somebody puts behind a name: a class path, a vtable, or both.
public struct Registration: Sendable {
  let classPath: String?
  let backend: RegisteredBackend?

  /// vLLM's decorator form adds a member with "" and overrides it later.
  var isEmpty: Bool { backend == nil && classPath?.isEmpty ?? true }

  public init(_ pointer: UnsafePointer<mla_backend_registration>?) throws(MLAError) {
    let registration = try readStruct(pointer, name: "registration")
    guard registration.class_path != nil || registration.vtable != nil else {
      throw .invalid("registration.class_path", "NULL", "class_path or vtable must be given")
    }
    classPath = try registration.class_path.map { path throws(MLAError) in
      try readString(path, field: "registration.class_path", maximumBytes: maximumPathBytes)
    }
    backend = try registration.vtable.map { table throws(MLAError) in
      try RegisteredBackend(table, field: "registration.vtable")
    }
  }
}
