import CMLAPrefill

/// A backend of somebody else's: the vtable, checked and copied, and the life of its context.
///
/// Registrations, snapshots and backend objects hold references; when the last
/// one goes, the context is destroyed, once. Nobody may let go of one while
/// holding a lock: destroy_context is foreign code.
public final class RegisteredBackend: @unchecked Sendable {
  /// `backend_name` in it is NULL: the caller's string is not ours to keep.
  /// `create` and both run functions are set.
  public let vtable: mla_backend_vtable
  /// What the backend calls itself, if it says so.
  public let backendName: String?
  /// Not before a registration is accepted: one that is refused leaves the context alone.
  private var ownsContext = false

  /// - Parameter field: what the caller calls it, for messages.
  init(_ pointer: UnsafePointer<mla_backend_vtable>, field: String) throws(MLAError) {
    var table = try readStruct(pointer, name: field)
    guard table.create != nil else { throw .null("\(field).create") }
    guard table.run_prefill_new_tokens != nil else {
      throw .null("\(field).run_prefill_new_tokens")
    }
    guard table.run_prefill_context_chunk != nil else {
      throw .null("\(field).run_prefill_context_chunk")
    }
    backendName = try table.backend_name.map { name throws(MLAError) in
      try readString(name, field: "\(field).backend_name", maximumBytes: maximumNameBytes)
    }
    table.backend_name = nil
    vtable = table
  }

  /// Takes over the context, when nothing can fail any more. Before anybody else
  /// knows the object.
  func adoptContext() { ownsContext = true }

  deinit {
    if ownsContext { Arithmetic.callers { vtable.destroy_context?(vtable.context) } }
  }
}
