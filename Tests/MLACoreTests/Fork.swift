import Foundation
import XCTest

/// Runs `body` in a forked child; returns its exit status, or nil if it was
/// killed, by its own alarm after ten seconds at the latest.
func exitStatusOfFork(_ body: () -> Int32) -> Int32? {
  // Swift marks fork() unavailable; here it is what is being tested.
  typealias Fork = @convention(c) () -> pid_t
  let fork = unsafeBitCast(dlsym(nil, "fork"), to: Fork.self)
  let child = fork()
  if child == 0 {
    alarm(10)
    _exit(body())
  }
  var status: Int32 = 0
  guard child > 0, waitpid(child, &status, 0) == child else { return nil }
  return status & 0x7f == 0 ? (status >> 8) & 0xff : nil
}

/// The thread sanitizer's own runtime does not support threads in a forked child.
func skipUnderThreadSanitizer() throws {
  try XCTSkipIf(dlsym(nil, "__tsan_init") != nil, "fork under the thread sanitizer")
}
