import BenchInstructions
import Foundation

/// The processor's caches for data, as the system tells of them, and how fast one thread
/// reads from each and from memory right now: where a kernel's fraction of the peak falls
/// as its input grows, they say what it has outgrown, and what that costs.
public struct Caches {
  public struct Level {
    public let name: String
    /// nil: memory.
    public let bytes: Int?
    public let bytesPerSecond: Double
  }

  public let levels: [Level]

  public init() {
    let sizes = Self.sizes()
    var levels = sizes.map { level in
      // Half of it: some is taken by others, and by what the system does.
      Level(
        name: level.name, bytes: level.bytes, bytesPerSecond: Self.readRate(level.bytes / 2))
    }
    let beyond = max(Self.leastMemory, 4 * (sizes.last?.bytes ?? 0))
    levels.append(
      Level(name: "memory", bytes: nil, bytesPerSecond: Self.readRate(min(beyond, Self.mostMemory))))
    self.levels = levels
  }

  private static let leastMemory = 64 << 20
  private static let mostMemory = 512 << 20

  /// From the first level on; empty where the system does not tell.
  private static func sizes() -> [(name: String, bytes: Int)] {
    let root = "/sys/devices/system/cpu/cpu0/cache"
    let indices = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    func read(_ index: String, _ field: String) -> String? {
      (try? String(contentsOfFile: "\(root)/\(index)/\(field)", encoding: .utf8))?
        .trimmingCharacters(in: .whitespacesAndNewlines)
    }
    return indices.compactMap { index -> (level: Int, name: String, bytes: Int)? in
      guard let type = read(index, "type"), type != "Instruction",
        let level = read(index, "level").flatMap({ Int($0) }),
        let kilobytes = read(index, "size").flatMap({ Int($0.prefix { $0.isNumber }) })
      else { return nil }
      return (level, "L\(level)\(type == "Data" ? "d" : "")", kilobytes << 10)
    }.sorted { $0.level < $1.level }.map { ($0.name, $0.bytes) }
  }

  /// Bytes per second of a buffer of that many, read again and again.
  private static func readRate(_ bytes: Int) -> Double {
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
    defer { buffer.deallocate() }
    memset(buffer, 1, bytes)
    return bench_read_rate(buffer, Int64(bytes), Int32(BENCH_CLOCK_THREAD), 0.05)
  }
}

extension Caches: CustomStringConvertible {
  public var description: String {
    levels.map { level in
      let size = level.bytes.map { $0 < 1 << 20 ? " \($0 >> 10) KiB" : " \($0 >> 20) MiB" } ?? ""
      return "\(level.name)\(size) \(Int(level.bytesPerSecond / 1e9)) GB/s"
    }.joined(separator: ", ")
  }
}
