// What the tests use of Foundation, of which there is none for this compiler and Arm.
@_exported import Glibc

public struct ProcessInfo: Sendable {
  public static let processInfo = ProcessInfo()
  public var environment: Environment { Environment() }

  public struct Environment: Sendable {
    public subscript(name: String) -> String? { getenv(name).map { String(cString: $0) } }
  }
}

extension String {
  /// Of one number, to two decimal places whatever the format.
  public init(format: String, _ number: Double) { self = "\((number * 100).rounded() / 100)" }

  public enum Encoding { case utf8 }

  public init(contentsOfFile path: String, encoding: Encoding) throws {
    guard let file = fopen(path, "r") else { throw NoFile() }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    while case let byte = getc(file), byte != EOF { bytes.append(UInt8(byte)) }
    self.init(decoding: bytes, as: UTF8.self)
  }
}

struct NoFile: Error {}

public struct FileManager: Sendable {
  public static let `default` = FileManager()

  public func contentsOfDirectory(atPath path: String) throws -> [String] {
    guard let folder = opendir(path) else { throw NoFile() }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }
}

/// Seconds on the clock that never goes back.
public struct Date: Comparable, Sendable {
  private let seconds: Double

  public init(timeIntervalSinceNow interval: Double = 0) {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    seconds = Double(time.tv_sec) + Double(time.tv_nsec) / 1e9 + interval
  }

  public static func < (a: Date, b: Date) -> Bool { a.seconds < b.seconds }
}

public final class Thread: @unchecked Sendable {
  private let body: () -> Void
  private var lock = pthread_mutex_t()
  private var finished = false

  public init(block: @escaping @Sendable () -> Void) { body = block }

  public static func detachNewThread(_ block: @escaping @Sendable () -> Void) {
    Thread(block: block).start()
  }

  public static func sleep(forTimeInterval seconds: Double) { usleep(UInt32(seconds * 1e6)) }

  public var isFinished: Bool {
    pthread_mutex_lock(&lock)
    defer { pthread_mutex_unlock(&lock) }
    return finished
  }

  public func start() {
    var thread = pthread_t()
    let context = Unmanaged.passRetained(self).toOpaque()
    pthread_create(
      &thread, nil,
      { context in
        let thread = Unmanaged<Thread>.fromOpaque(context!).takeRetainedValue()
        thread.body()
        pthread_mutex_lock(&thread.lock)
        thread.finished = true
        pthread_mutex_unlock(&thread.lock)
        return nil
      }, context)
    pthread_detach(thread)
  }
}

public final class DispatchSemaphore: @unchecked Sendable {
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  public init(value: Int) { sem_init(semaphore, 0, UInt32(value)) }
  deinit { semaphore.deallocate() }

  @discardableResult public func signal() -> Int { Int(sem_post(semaphore)) }
  public func wait() { while sem_wait(semaphore) != 0 {} }
}

/// Entered by the thread that waits alone, before it waits.
public final class DispatchGroup: @unchecked Sendable {
  private let left = DispatchSemaphore(value: 0)
  private var entered = 0

  public init() {}
  public func enter() { entered += 1 }
  public func leave() { left.signal() }
  public func wait() { for _ in 0..<entered { left.wait() } }
}

public enum DispatchQueue {
  private final class Iteration: @unchecked Sendable {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
  }

  public static func concurrentPerform(iterations count: Int, execute body: (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
      let iterations = (0..<count).map { index in Iteration { body(index) } }
      // Threads hold none of them, so that none is held when all have ended.
      let threads = iterations.map { iteration in
        var thread = pthread_t()
        pthread_create(
          &thread, nil,
          { context in
            Unmanaged<Iteration>.fromOpaque(context!).takeUnretainedValue().run()
            return nil
          }, Unmanaged.passUnretained(iteration).toOpaque())
        return thread
      }
      for thread in threads { pthread_join(thread, nil) }
      withExtendedLifetime(iterations) {}
    }
  }
}
