import Glibc
import MLAShims

/// The calling thread's last error message.
///
/// In memory of any size, kept for the next one and freed with the thread: a thread that
/// never fails costs nothing.
public enum LastError {
  private static let longestMessage = (64 << 10) - 1
  /// Memory for so much may come from the reserve; a thread keeps it.
  private static let shortMessage = 512
  /// Shared by the threads that got no memory; never written.
  private static var noMemory: UnsafeMutablePointer<CChar> {
    constant("there was no memory for the message")
  }
  private static var none: UnsafeMutablePointer<CChar> { constant("") }

  private static func constant(_ text: StaticString) -> UnsafeMutablePointer<CChar> {
    UnsafeMutablePointer(mutating: text.cString)
  }

  /// Valid until the thread sets another message or ends.
  public static var cString: UnsafePointer<CChar> {
    UnsafePointer(mla_shim_thread().pointee.last_error.text ?? none)
  }

  public static func set(_ message: String) { set(cString: message) }

  /// Where memory is short the message is cut, or replaced by one that says so.
  ///
  /// - Parameter message: may be what `cString` gave; NULL means "".
  public static func set(cString message: UnsafePointer<CChar>?) {
    let message = message ?? UnsafePointer(none)
    let length = strnlen(message, longestMessage)
    if length == 0 && mla_shim_thread().pointee.last_error.text == nil { return }
    let own = makeRoom(length + 1)
    guard let text = own.text, own.capacity > 0 else { return }
    let kept = min(length, own.capacity - 1)
    memmove(text, message, kept)
    text[kept] = 0
  }

  /// Runs foreign code, in the caller's arithmetic: what it says meanwhile, "" if
  /// nothing. The thread keeps the message that it had, at its address: a call that
  /// succeeds in the end changes none.
  static func said<Result>(by call: () -> Result) -> (message: String, result: Result) {
    let earlier = mla_shim_thread().pointee.last_error
    if earlier.text != nil { keep(mla_message()) }
    defer {
      let said = mla_shim_thread().pointee.last_error
      if said.text != earlier.text {
        keep(earlier)
        release(said)
      }
    }
    let result = Arithmetic.callers(call)
    return (String(cString: cString), result)
  }

  // MARK: Memory

  /// Frees a thread's message when the thread ends.
  private static let key: pthread_key_t? = {
    var key = pthread_key_t()
    let status = pthread_key_create(&key) { text in
      mla_shim_thread().pointee.last_error = mla_message()
      free(text)
    }
    return status == 0 ? key : nil
  }()

  /// Makes it the thread's, if need be without freeing it in the end: false then.
  @discardableResult
  private static func keep(_ message: mla_message) -> Bool {
    mla_shim_thread().pointee.last_error = message
    guard let key else { return false }
    return pthread_setspecific(key, message.capacity > 0 ? message.text : nil) == 0
  }

  /// The thread's own, with at least that capacity if memory allows.
  private static func makeRoom(_ capacity: Int) -> mla_message {
    let own = mla_shim_thread().pointee.last_error
    if own.capacity >= capacity { return own }
    let larger = allocate(capacity, orShort: own.capacity == 0)
    if larger.text != nil {
      if keep(larger) {
        release(own)
        return larger
      }
      // What the system cannot note for the thread's end is not the heap's.
      free(larger.text)
    } else if own.text != nil {
      return own
    }
    let kept = own.text == nil ? mla_message(text: noMemory, capacity: 0) : own
    mla_shim_thread().pointee.last_error = kept
    return kept
  }

  private static func allocate(_ capacity: Int, orShort: Bool) -> mla_message {
    if capacity > shortMessage, let memory = mla_shim_try_allocate(16, capacity) {
      return mla_message(text: memory.assumingMemoryBound(to: CChar.self), capacity: capacity)
    }
    guard orShort, let memory = malloc(shortMessage) else { return mla_message() }
    return mla_message(text: memory.assumingMemoryBound(to: CChar.self), capacity: shortMessage)
  }

  /// A message without capacity is a constant.
  private static func release(_ message: mla_message) {
    if message.capacity > 0 { free(message.text) }
  }
}
