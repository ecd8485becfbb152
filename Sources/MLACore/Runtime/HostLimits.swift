import Glibc
import Synchronization

/// How much of the machine the process may use, as found by its first use of the library
/// or when the host last asked. Whoever needs it first finds it, under no lock: files are
/// read for it.
enum HostLimits {
  private static let foundProcessors = Atomic(0)
  private static let foundMemory = Atomic(0)

  /// Processors whose time the process gets: those it may run on, or fewer.
  static var processors: Int { known(foundProcessors) }

  /// The machine's memory, or what a container gets of it.
  static var memoryBytes: Int { known(foundMemory) }

  /// Looks again.
  static func find() {
    let group = CgroupLimits()
    let allowed = max(ProcessorSet.process.count, 1)
    foundProcessors.store(min(allowed, group.processors ?? .max), ordering: .relaxed)
    foundMemory.store(min(machineBytes, group.memoryBytes ?? .max), ordering: .relaxed)
  }

  private static func known(_ found: borrowing Atomic<Int>) -> Int {
    if found.load(ordering: .relaxed) == 0 { find() }
    return found.load(ordering: .relaxed)
  }

  private static var machineBytes: Int {
    let (pages, bytes) = (sysconf(Int32(_SC_PHYS_PAGES)), sysconf(Int32(_SC_PAGESIZE)))
    return pages > 0 && bytes > 0 ? pages * bytes : .max
  }
}
