import MLAShims

/// A thread's floating-point state. Results depend on none of it: all that computes
/// runs in the library's own, the work of a call and each piece of a parallel loop,
/// whoever's the thread. What the caller had is back afterwards, noted exceptions
/// included, and while the caller's code runs.
public enum Arithmetic {
  /// Runs `body` rounding to nearest even, with subnormal numbers and without traps.
  public static func own<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let thread = mla_shim_thread()
    if thread.pointee.is_inside != 0 { return try body() }
    thread.pointee.callers_arithmetic = mla_shim_arithmetic()
    thread.pointee.is_inside = 1
    mla_shim_set_arithmetic(mla_shim_plain_arithmetic())
    defer {
      mla_shim_set_arithmetic(thread.pointee.callers_arithmetic)
      thread.pointee.is_inside = 0
    }
    return try body()
  }

  /// Runs foreign code, which may call the library, as if the library were not there.
  public static func callers<Result>(_ body: () -> Result) -> Result {
    let thread = mla_shim_thread()
    if thread.pointee.is_inside == 0 { return body() }
    let callers = thread.pointee.callers_arithmetic
    thread.pointee.is_inside = 0
    mla_shim_set_arithmetic(callers)
    defer {
      thread.pointee.callers_arithmetic = callers
      thread.pointee.is_inside = 1
      mla_shim_set_arithmetic(mla_shim_plain_arithmetic())
    }
    return body()
  }
}
