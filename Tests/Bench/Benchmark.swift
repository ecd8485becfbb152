import CMLAPrefill
import Foundation
import MLABenchSupport
import MLATestSupport

/// The whole run: speeds per length, peak memory, JSON.
struct Benchmark {
  private let arguments: Arguments
  private let words: [String]
  private let library: MLALibrary
  private let cases: [KernelCase]
  private static let memoryLengths = [2048, 8192]

  init(_ arguments: Arguments, words: [String]) throws {
    self.arguments = arguments
    self.words = words
    library = try MLALibrary(path: arguments.library)
    if let threads = arguments.threads { try library.setNumThreads(threads) }
    cases = try arguments.cases(bestISA: library.cpuInfo().isa)
  }

  func run() throws {
    if arguments.isMemoryChild { return try printMemory() }
    let d = arguments.dimensions
    print("libmlaprefill \(library.version): \(library.cpuSummary)")
    print("\(d.heads) heads of \(d.nope)/\(d.rope)/\(d.v), \(library.numThreads) threads, causal FLOPs, seed = tokens")
    let caches = try library.cpuInfo().isa < Int32(MLA_ISA_AVX2) ? nil : Caches()
    if let caches { print("one thread reads \(caches)") }
    var rows: [[String: Any]] = []
    print(Table.header)
    for shape in arguments.shapes {
      for format in arguments.formats {
        let workload = Workload(shape, dimensions: d, format: format)
        let comparison = try Comparison(
          library, backend: arguments.backend, workload: workload,
          cases: cases.filter { $0.format == format }, rounds: arguments.rounds,
          secondsPerCase: arguments.secondsPerCase)
        rows += comparison.measurements.map { row(workload, $0) }
        Table.lines(comparison).forEach { print($0) }
      }
    }
    let chunks = try measureContextChunk()
    let projections = measureProjections()
    let scores = measureScores()
    let memory = arguments.measuresMemory ? try measureMemory() : []
    if let file = arguments.json {
      try write(rows, chunks, projections, scores, memory, caches, to: file)
    }
  }

  /// On one thread, by its processor time.
  private func measureContextChunk() throws -> [[String: Any]] {
    let (queries, keys) = (128, 8064)
    return try cases.map { kernelCase in
      let result = try ContextChunk(
        library, backend: arguments.backend, kernelCase, queries: queries, keys: keys,
        dimensions: arguments.dimensions, rounds: arguments.rounds)
      print(
        "\(queries) queries on \(keys) keys, \(kernelCase): "
          + String(format: "%.2f, with K and V prepared %.2f", result.wholeCall, result.prepared)
          + " of \(result.instruction), difference " + Table.scientific(result.difference))
      return [
        "isa": kernelCase.isaName, "dtype": kernelCase.format.name, "queries": queries, "keys": keys,
        "peak_instruction": result.instruction, "fraction_of_peak": result.wholeCall,
        "prepared_fraction_of_peak": result.prepared, "difference": result.difference,
      ]
    }
  }

  /// On one thread, by its processor time: a block's work does not depend on the
  /// request's length.
  private func measureProjections() -> [[String: Any]] {
    cases.map { kernelCase in
      let result = UpProjection(
        kernelCase, tokens: 512, dimensions: arguments.dimensions, rounds: arguments.rounds)
      print(
        "up-projection, \(kernelCase): "
          + String(format: "%.3f TFLOP/s, %.2f", result.tflops, result.fractionOfPeak)
          + " of \(result.instruction)")
      return [
        "isa": kernelCase.isaName, "dtype": kernelCase.format.name, "tflops": result.tflops,
        "peak_instruction": result.instruction, "fraction_of_peak": result.fractionOfPeak,
      ]
    }
  }

  /// Of the attention kernels alone, likewise.
  private func measureScores() -> [[String: Any]] {
    cases.map { kernelCase in
      let result = ScoreCosts(
        kernelCase, tokens: 1024, dimensions: arguments.dimensions, rounds: arguments.rounds)
      let ratios = result.ratios.dropFirst().map {
        String(format: "\($0.scores.rawValue) %.2f", $0.ratio)
      }
      print("times random scores, \(kernelCase): " + ratios.joined(separator: ", "))
      var row: [String: Any] = ["isa": kernelCase.isaName, "dtype": kernelCase.format.name]
      for (scores, ratio) in result.ratios { row[scores.rawValue] = ratio }
      return row
    }
  }

  private func measureMemory() throws -> [[String: Any]] {
    try Self.memoryLengths.flatMap { tokens in
      try arguments.formats.compactMap { format -> [String: Any]? in
        guard let strongest = cases.last(where: { $0.format == format }) else { return nil }
        // The last word wins, so the child reads the rest as it is.
        let bytes = try MemoryProbe.measureInChild(
          words + [
            "--memory-child", "--seq", "\(tokens)", "--dtype", format.name, "--isa",
            strongest.isaName,
          ])
        print(
          "peak memory beyond inputs and outputs, S=\(tokens), \(strongest): "
            + String(format: "%.1f MiB", Double(bytes) / 1_048_576))
        return ["seq": tokens, "kernel": strongest.description, "peak_extra_bytes": bytes]
      }
    }
  }

  private func printMemory() throws {
    let workload = Workload(
      arguments.shapes[0], dimensions: arguments.dimensions, format: cases[0].format)
    print(
      try MemoryProbe.measureHere(
        library, backend: arguments.backend, workload: workload, kernelCase: cases[0]))
  }

  private func row(_ workload: Workload, _ m: Comparison.Measurement) -> [String: Any] {
    var row: [String: Any] = [
      "requests": workload.shape.requests, "seq": workload.shape.tokens, "seed": workload.seed,
      "isa": m.kernelCase.isaName, "dtype": m.kernelCase.format.name,
      "best_tflops": m.best, "median_tflops": m.median, "peak_instruction": m.instruction,
      "peak_tflops": m.peak, "fraction_of_peak": m.fractionOfPeak, "samples": m.samples,
    ]
    row["ratio_to_openblas"] = m.ratioToOpenBLAS
    row["difference_from_openblas"] = m.difference
    return row
  }

  private func write(
    _ rows: [[String: Any]], _ chunks: [[String: Any]], _ projections: [[String: Any]],
    _ scores: [[String: Any]],
    _ memory: [[String: Any]], _ caches: Caches?, to file: String
  ) throws {
    let report: [String: Any] = [
      "version": library.version, "cpu": library.cpuSummary, "threads": library.numThreads,
      "heads": arguments.dimensions.heads, "speed": rows, "context_chunk": chunks,
      "up_projection": projections,
      "awkward_scores": scores,
      "memory": memory,
      "caches": (caches?.levels ?? []).map { level -> [String: Any] in
        var row: [String: Any] = ["name": level.name, "read_bytes_per_second": level.bytesPerSecond]
        row["bytes"] = level.bytes
        return row
      },
    ]
    try JSONSerialization.data(withJSONObject: report, options: [.prettyPrinted, .sortedKeys])
      .write(to: URL(fileURLWithPath: file))
  }
}
