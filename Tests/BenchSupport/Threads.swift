import Foundation

/// Runs `body(0) ... body(count - 1)` at the same time, each on its own thread.
public func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
  let threads = (1..<max(count, 1)).map { index -> pthread_t in
    var thread = pthread_t()
    let start = Unmanaged.passRetained(Start { body(index) })
    let failure = pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue().body()
        return nil
      }, start.toOpaque())
    precondition(failure == 0, "pthread_create")
    return thread
  }
  body(0)
  threads.forEach { pthread_join($0, nil) }
}

private final class Start {
  let body: () -> Void
  init(_ body: @escaping () -> Void) { self.body = body }
}

func seconds(_ body: () throws -> Void) rethrows -> Double {
  let begin = DispatchTime.now().uptimeNanoseconds
  try body()
  return Double(DispatchTime.now().uptimeNanoseconds - begin) * 1e-9
}
