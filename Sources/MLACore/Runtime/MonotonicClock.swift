import Glibc

/// Time that no setting of the system's clock changes.
enum MonotonicClock {
  /// Since some moment.
  static var nanoseconds: Int {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec
  }
}
