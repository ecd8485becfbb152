import CMLAPrefill

/// What somebody has put behind a name: a class path, a vtable, or both.
public struct Registration: Sendable {
  public let classPath: String?
  public let backend: RegisteredBackend?

  init(_ request: RegistrationRequest) {
    classPath = request.classPath
    backend = request.vtable.map { RegisteredBackend($0) }
  }
}

/// A checked registration that has not been accepted yet.
public struct RegistrationRequest: Sendable {
  let classPath: String?
  let vtable: CheckedVTable?

  public init(_ pointer: UnsafePointer<mla_backend_registration>?) throws(MLAError) {
    let registration = try readStruct(pointer, name: "registration")
    guard registration.class_path != nil || registration.vtable != nil else {
      throw .invalid("registration.class_path", "NULL", "class_path or vtable must be given")
    }
    classPath = try registration.class_path.map { path throws(MLAError) in
      try readString(path, field: "registration.class_path", maximumBytes: maximumPathBytes)
    }
    vtable = try registration.vtable.map { table throws(MLAError) in
      try CheckedVTable(table, field: "registration.vtable")
    }
  }
}
