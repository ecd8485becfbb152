import Foundation
import XCTest

@testable import MLACore

/// Trees of files as the kernel shows them to processes in containers and out of them.
final class CgroupLimitsTests: XCTestCase {
  private var root = ""

  override func setUpWithError() throws {
    root = NSTemporaryDirectory() + "cgroup-\(UUID().uuidString)"
    try write("/proc/self/placeholder", "")
  }
  override func tearDown() { try? FileManager.default.removeItem(atPath: root) }

  private func write(_ path: String, _ text: String) throws {
    let file = URL(fileURLWithPath: root + path)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: file)
  }

  private func expect(
    _ processors: Int?, _ memoryBytes: Int?, file: StaticString = #filePath, line: UInt = #line
  ) {
    let open = try? openFiles()
    let limits = CgroupLimits(root: root)
    XCTAssertEqual(try? openFiles(), open, "open files", file: file, line: line)
    XCTAssertEqual(limits.processors, processors, "processors", file: file, line: line)
    XCTAssertEqual(limits.memoryBytes, memoryBytes, "memory", file: file, line: line)
  }

  private let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

  func testNoFiles() { expect(nil, nil) }

  func testUnified() throws {
    try write("/proc/self/cgroup", "0::/system.slice/engine.service\n")
    try write("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + unified)
    expect(nil, nil)
    let own = "/sys/fs/cgroup/system.slice/engine.service"
    try write(own + "/cpu.max", "250000 100000\n")
    try write(own + "/memory.max", "1073741824\n")
    expect(3, 1 << 30)
    try write(own + "/cpu.max", "max 100000\n")
    try write(own + "/memory.max", "max\n")
    expect(nil, nil)
    // What is around a group limits it, too.
    try write("/sys/fs/cgroup/system.slice/cpu.max", "50000 100000\n")
    try write("/sys/fs/cgroup/system.slice/memory.max", "4096\n")
    expect(1, 4096)
    try write(own + "/cpu.max", "400000 100000\n")
    try write(own + "/memory.max", "2048\n")
    expect(1, 2048)
  }

  func testVersionOne() throws {
    try write(
      "/proc/self/cgroup",
      "12:memory:/docker/abc\n7:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n")
    try write(
      "/proc/self/mountinfo",
      """
      31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
      32 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
      33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
      34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
      35 31 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
      """)
    try write("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "150000\n")
    try write("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "50000\n")
    try write("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n")
    try write("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "536870912\n")
    // Of other hierarchies.
    try write("/sys/fs/cgroup/cpuset/docker/abc/memory.limit_in_bytes", "1\n")
    try write("/sys/fs/cgroup/systemd/docker/abc/memory.limit_in_bytes", "1\n")
    expect(3, 1 << 29)
    try write("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n")
    expect(nil, 1 << 29)
  }

  /// Some controllers of each version.
  func testBothVersions() throws {
    try write("/proc/self/cgroup", "4:memory:/a\n0::/b\n")
    try write(
      "/proc/self/mountinfo",
      "34 31 0:31 / /cg/memory rw - cgroup cgroup rw,memory\n36 31 0:33 / /cg/unified rw - cgroup2 none rw\n")
    try write("/cg/memory/a/memory.limit_in_bytes", "1000")
    try write("/cg/unified/b/cpu.max", "100 1000")
    expect(1, 1000)
  }

  /// A container that sees its part of the hierarchy at the mount point, its path in the
  /// whole or in its part.
  func testContainersWithoutNamespace() throws {
    try write(
      "/proc/self/mountinfo",
      #"40 39 0:26 /docker/a\040b /mnt/c\134g ro master:9 - cgroup2 cgroup rw"# + "\n")
    try write("/mnt/c\\g/cpu.max", "200000 100000")
    try write("/mnt/c\\g/sub/memory.max", "777")
    for path in ["/docker/a b", "/docker/a b/", "/", "/elsewhere/x", "/../../x", "/docker/a bc"] {
      try write("/proc/self/cgroup", "0::\(path)\n")
      expect(2, nil)
    }
    try write("/proc/self/cgroup", "0::/docker/a b/sub/sub\n")
    expect(2, 777)
  }

  func testRoundsUp() throws {
    try write("/proc/self/cgroup", "0::/")
    try write("/proc/self/mountinfo", unified)
    for (quota, processors) in [(1, 1), (99_999, 1), (100_000, 1), (100_001, 2), (Int.max, .max / 100_000 + 1)] {
      try write("/sys/fs/cgroup/cpu.max", "\(quota) 100000\n")
      expect(processors, nil)
    }
  }

  func testAnythingInTheFiles() throws {
    let names = [
      "/proc/self/cgroup", "/proc/self/mountinfo", "/sys/fs/cgroup/cpu.max",
      "/sys/fs/cgroup/memory.max",
    ]
    let right = ["0::/\n", unified, "200000 100000\n", "5000\n"]
    let wrong = [
      "", "\n\n", ":::", "0::", "0:cpu", "max", "max max", "1", "1 2 3 4", "-5 100000", "0 0",
      "99999999999999999999 1", "1 99999999999999999999", "\u{0}\u{1}", " - cgroup2 ", "a b c d e f - cgroup2",
      "a b c d e f g h - ", "1 2 3 / \\ rw - cgroup2 x y", "1 2 3 / \\9 rw - cgroup2 x y",
      String(repeating: "x", count: 100_000), String(repeating: "- ", count: 50_000),
      String(repeating: "/", count: 9000),
    ]
    for (name, text) in zip(names, right) { try write(name, text) }
    expect(2, 5000)
    for i in names.indices {
      for text in wrong {
        try write(names[i], text)
        let limits = CgroupLimits(root: root)
        XCTAssertGreaterThan(limits.processors ?? 1, 0)
        XCTAssertGreaterThan(limits.memoryBytes ?? 1, 0)
        // Nothing is a limit but what says one.
        if i == 2 { XCTAssertNil(limits.processors, text) }
        if i < 2 && !text.contains(":") { XCTAssertEqual(limits, CgroupLimits(root: root + "/none")) }
      }
      try write(names[i], right[i])
    }
    try FileManager.default.removeItem(atPath: root + names[2])
    try FileManager.default.createDirectory(atPath: root + names[2], withIntermediateDirectories: true)
    expect(nil, 5000)
  }

  func testLimitsOfThisProcess() {
    XCTAssertGreaterThan(HostLimits.processors, 0)
    XCTAssertLessThanOrEqual(HostLimits.processors, ProcessorSet.process.count)
    XCTAssertGreaterThan(HostLimits.memoryBytes, 1 << 20)
  }
}
