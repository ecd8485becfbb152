import Foundation
import MLABenchSupport
import MLATestSupport

/// Where the layer's absorbed form stops paying: both forms over numbers of new
/// tokens and context lengths.
struct FormBenchmark {
  private let arguments: Arguments
  private let library: MLALibrary

  init(_ arguments: Arguments) throws {
    self.arguments = arguments
    library = try MLALibrary(path: arguments.library)
  }

  func run() throws {
    print("libmlaprefill \(library.version): \(library.cpuSummary)")
    print("one layer call, milliseconds of one thread, best form and AUTO's choice")
    var rows: [[String: Any]] = []
    for kernelCase in try arguments.cases(bestISA: library.cpuInfo().isa) {
      for heads in arguments.formHeads {
        var dimensions = arguments.dimensions
        dimensions.heads = heads
        let comparison = try FormComparison(
          library, dimensions: dimensions, format: kernelCase.format, maxISA: kernelCase.isa)
        for context in arguments.formContexts {
          rows += try measure(comparison, kernelCase, heads: heads, context: context)
        }
      }
    }
    if let file = arguments.json { try write(rows, to: file) }
  }

  private func measure(
    _ comparison: FormComparison, _ kernelCase: KernelCase, heads: Int, context: Int
  ) throws -> [[String: Any]] {
    try arguments.formNewTokens.map { new in
      let m = try comparison.measure([(new, context)], rounds: arguments.rounds)
      print(
        "\(kernelCase), \(heads) heads, \(context) context, \(new) new: up-projected "
          + String(
            format: "%.3f, absorbed %.3f, ratio %.2f", m.upProjected * 1e3, m.absorbed * 1e3,
            m.gain)
          + ", AUTO \(m.autoTakesAbsorbed ? "absorbed" : "up-projected"), difference "
          + Table.scientific(m.difference))
      return [
        "isa": kernelCase.isaName, "dtype": kernelCase.format.name, "heads": heads,
        "context": context, "new_tokens": new, "up_projected_seconds": m.upProjected,
        "absorbed_seconds": m.absorbed, "auto_takes_absorbed": m.autoTakesAbsorbed,
        "difference": m.difference,
      ]
    }
  }

  private func write(_ rows: [[String: Any]], to file: String) throws {
    let d = arguments.dimensions
    let report: [String: Any] = [
      "version": library.version, "cpu": library.cpuSummary,
      "dims": [d.nope, d.rope, d.v, d.kvLoraRank], "rounds": arguments.rounds, "forms": rows,
    ]
    try JSONSerialization.data(withJSONObject: report, options: [.prettyPrinted, .sortedKeys])
      .write(to: URL(fileURLWithPath: file))
  }
}
