import Foundation
import MLATestSupport

/// Memory that a run needs on top of its inputs and outputs. The kernel's
/// high-water mark never falls, so each measurement takes a process of its own.
public enum MemoryProbe {
  /// In this process, which must not have run anything yet: bytes by which the
  /// peak grew while a backend was created, prepared and run twice.
  public static func measureHere(
    _ library: MLALibrary, backend name: String?, workload: Workload, kernelCase: KernelCase
  ) throws -> Int {
    let state = workload.emptyState(kernelCase.format)
    // Pages count once they are touched.
    for tensor in [state.out, state.lse] {
      memset(tensor.data, 0, tensor.count * tensor.format.byteCount)
    }
    let before = status("VmRSS")
    let backend = try Backend(
      library, name: name, dimensions: workload.dimensions, format: kernelCase.format,
      maxISA: kernelCase.isa)
    try backend.prepare(queryStarts: workload.shape.queryStarts)
    for _ in 0..<2 { try workload.run(backend, into: state) }
    return status("VmHWM") - before
  }

  /// Starts this executable again with `arguments`; it prints one number.
  public static func measureInChild(_ arguments: [String]) throws -> Int {
    let child = Process()
    child.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    child.arguments = arguments
    let output = Pipe()
    child.standardOutput = output
    try child.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    child.waitUntilExit()
    guard child.terminationStatus == 0,
      let bytes = Int(text.trimmingCharacters(in: .whitespacesAndNewlines))
    else { throw MLALibrary.Failure(description: "memory probe: \(text)") }
    return bytes
  }

  /// A line of /proc/self/status, in bytes.
  private static func status(_ field: String) -> Int {
    let lines = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = lines.split(separator: "\n").first { $0.hasPrefix(field + ":") } ?? ""
    return (line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0) * 1024
  }
}
