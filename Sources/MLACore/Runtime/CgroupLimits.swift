import Glibc
import MLAShims

/// What the control groups that a process is in, and those around them, leave it; of
/// either version, and of files with anything in them.
struct CgroupLimits: Equatable {
  /// As many processors' time, rounded up; nil: no limit.
  private(set) var processors: Int?
  private(set) var memoryBytes: Int?

  /// - Parameter root: put before the paths of all files.
  init(root: String = "") {
    let root = [UInt8](root.utf8)
    var groups: [Group] = []
    forEachLine(of: root + "/proc/self/cgroup".utf8) { line in
      if let group = Group(line) { groups.append(group) }
    }
    forEachLine(of: root + "/proc/self/mountinfo".utf8) { line in
      guard let mount = Mount(line) else { return }
      for group in groups where mount.shows(group) {
        for folder in mount.folders(of: group) { apply(root + folder, isUnified: mount.isUnified) }
      }
    }
  }

  private mutating func apply(_ folder: [UInt8], isUnified: Bool) {
    func numbers(_ file: String) -> [Int?] {
      var numbers: [Int?] = []
      forEachLine(of: folder + "/".utf8 + file.utf8) { line in
        if numbers.isEmpty { numbers = line.split(separator: blank).map(number) }
      }
      return numbers
    }
    let time =
      isUnified
      ? numbers("cpu.max") : numbers("cpu.cfs_quota_us") + numbers("cpu.cfs_period_us")
    if time.count == 2, let quota = time[0], let period = time[1] {
      processors = min(processors ?? .max, (quota - 1) / period + 1)
    }
    if let bytes = numbers(isUnified ? "memory.max" : "memory.limit_in_bytes").first ?? nil {
      memoryBytes = min(memoryBytes ?? .max, bytes)
    }
  }
}

/// One that may limit processors or memory: "4:cpu,cpuacct:/path".
private struct Group {
  /// None in the unified hierarchy.
  let controllers: [Text]
  let path: Text

  init?(_ line: Text) {
    let fields = line.split(separator: colon, maxSplits: 2, omittingEmptySubsequences: false)
    guard fields.count == 3 else { return nil }
    controllers = fields[1].split(separator: comma)
    guard
      controllers.isEmpty
        || controllers.contains(where: {
          $0.elementsEqual("cpu".utf8) || $0.elementsEqual("memory".utf8)
        })
    else { return nil }
    path = fields[2]
  }
}

/// A mounted hierarchy:
/// "36 35 0:31 /root /mount/point rw,noatime shared:1 - cgroup cgroup rw,cpu".
private struct Mount {
  let isUnified: Bool
  /// The group at the mount point.
  private let root: [UInt8]
  private let point: [UInt8]
  private let controllers: [Text]

  init?(_ line: Text) {
    let fields = line.split(separator: blank)
    guard let dash = fields.dropFirst(6).firstIndex(where: { $0.elementsEqual("-".utf8) }),
      fields.count > dash + 3
    else { return nil }
    isUnified = fields[dash + 1].elementsEqual("cgroup2".utf8)
    guard isUnified || fields[dash + 1].elementsEqual("cgroup".utf8) else { return nil }
    root = unescaped(fields[3])
    point = unescaped(fields[4])
    controllers = fields[dash + 3].split(separator: comma)
  }

  func shows(_ group: Group) -> Bool {
    isUnified ? group.controllers.isEmpty : group.controllers.contains(where: controllers.contains)
  }

  /// The group's, then those around it. One that is not below the mount point, as seen
  /// from a container, is taken for the mount point's.
  func folders(of group: Group) -> [[UInt8]] {
    let inRoot = root.split(separator: slash)
    let names = group.path.split(separator: slash)
    let isBelow =
      names.starts(with: inRoot) { $0.elementsEqual($1) }
      && !names.contains { $0.elementsEqual("..".utf8) }
    var folders = [point]
    for name in isBelow ? names.dropFirst(inRoot.count) : [] {
      folders.append(folders[folders.count - 1] + [slash] + name)
    }
    return folders.reversed()
  }
}

private typealias Text = ArraySlice<UInt8>

private let blank = UInt8(ascii: " ")
private let colon = UInt8(ascii: ":")
private let comma = UInt8(ascii: ",")
private let slash = UInt8(ascii: "/")
private let newline = UInt8(ascii: "\n")

/// Above 0; nil for "max" and whatever else is no limit.
private func number(_ text: Text) -> Int? {
  Int(String(decoding: text, as: UTF8.self)).flatMap { $0 > 0 ? $0 : nil }
}

/// Blanks, tabs, newlines and backslashes in mountinfo are octal: "\040".
private func unescaped(_ text: Text) -> [UInt8] {
  var (bytes, rest) = ([UInt8](), text)
  while let byte = rest.popFirst() {
    let digits = rest.prefix(3)
    guard byte == UInt8(ascii: "\\"), digits.count == 3,
      let code = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
    else {
      bytes.append(byte)
      continue
    }
    bytes.append(code)
    rest = rest.dropFirst(3)
  }
  return bytes
}

/// None of a file that cannot be read. Long lines are cut, and files that do not end:
/// what is held in memory is little, whatever they contain.
private func forEachLine(of path: [UInt8], _ body: (Text) -> Void) {
  let file = (path + [0]).withUnsafeBytes { path in
    path.withMemoryRebound(to: CChar.self) { path in
      path.baseAddress.map { mla_shim_open($0, O_RDONLY | O_CLOEXEC | O_NONBLOCK) } ?? -1
    }
  }
  guard file >= 0 else { return }
  defer { close(file) }
  var (line, left) = ([UInt8](), 16 << 20)
  withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { part in
    while left > 0, case let count = read(file, part.baseAddress, part.count), count > 0 {
      left -= count
      for byte in part.prefix(count) {
        if byte == newline {
          body(line[...])
          line.removeAll(keepingCapacity: true)
        } else if line.count < 8192 {
          line.append(byte)
        }
      }
    }
  }
  if !line.isEmpty { body(line[...]) }
}
