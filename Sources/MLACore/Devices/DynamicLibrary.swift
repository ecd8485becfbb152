import Glibc

/// A shared library of the host's, loaded when it is first needed and for good: what it
/// handed out may be in use anywhere.
struct DynamicLibrary: @unchecked Sendable {
  let name: String
  private let handle: UnsafeMutableRawPointer

  /// - Parameter name: as dlopen() searches for it.
  /// - Throws: what dlopen() says.
  init(_ name: String) throws(DynamicLibraryError) {
    // In arithmetic of the caller's: constructors of the library may run, and keep what
    // they find for threads of their own.
    let handle = Arithmetic.callers { dlopen(name, RTLD_NOW | RTLD_LOCAL) }
    guard let handle else {
      throw DynamicLibraryError(text: dlerror().map { String(cString: $0) } ?? name)
    }
    self.name = name
    self.handle = handle
  }

  /// - Parameter type: that of the function, @convention(c).
  func function<Function>(_ symbol: String, as type: Function.Type) throws(DynamicLibraryError)
    -> Function
  {
    guard let address = dlsym(handle, symbol) else {
      throw DynamicLibraryError(text: "\(name) lacks \(symbol)")
    }
    return unsafeBitCast(address, to: type)
  }
}

struct DynamicLibraryError: Error {
  let text: String
}
