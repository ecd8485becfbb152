import Foundation
import MLABenchSupport
import MLATestSupport

// mla-demo [folder with the recorded data]: the main job of an engine on
// recorded input, then a short comparison of speed. Exits with 1 if an error
// is too large.

do {
  let folder = CommandLine.arguments.dropFirst().first ?? "Tests/Data"
  let library = try MLALibrary()
  let recording = try Recording(folder: folder, library: library)
  let backend = try recording.makeBackend()
  print("libmlaprefill \(library.version)")
  print("  \(library.cpuSummary)")
  print("  backend chosen by the selector: \(backend.name), \(library.numThreads) threads")

  print("\nRecorded engine steps, errors against the recording")
  print(Check.header)
  let checks = try recording.checkFresh(backend) + recording.checkChunked(backend)
  checks.forEach { print($0.line) }

  print("\nSpeed on one request of 2048 tokens, 16 heads of 128/64/128, bf16")
  print(Table.header)
  let strongest = KernelCase(isa: try library.cpuInfo().isa, format: .bfloat16)
  let comparison = try Comparison(
    library,
    workload: Workload(BatchShape(tokens: 2048), dimensions: MLADimensions(), format: .bfloat16),
    cases: [strongest], rounds: 7, secondsPerCase: 3)
  Table.lines(comparison).forEach { print($0) }

  if !checks.allSatisfy(\.passes) {
    print("\nFAILED: out must be within \(Check.outBound), lse within \(Check.lseBound)")
    exit(1)
  }
} catch {
  print("mla-demo: \(error)")
  exit(1)
}
