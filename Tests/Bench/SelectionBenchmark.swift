import Foundation
import MLABenchSupport
import MLATestSupport

/// What attention to selected keys gains over attention to all, by context length.
struct SelectionBenchmark {
  private let arguments: Arguments
  private let library: MLALibrary

  init(_ arguments: Arguments) throws {
    self.arguments = arguments
    library = try MLALibrary(path: arguments.library)
    if let threads = arguments.threads { try library.setNumThreads(threads) }
  }

  func run() throws {
    let (new, topk) = (arguments.formNewTokens.max() ?? 1, arguments.topk)
    print("libmlaprefill \(library.version): \(library.cpuSummary)")
    print("one layer call of \(new) new tokens, \(library.numThreads) threads, milliseconds a token")
    var rows: [[String: Any]] = []
    for kernelCase in try arguments.cases(bestISA: library.cpuInfo().isa) {
      for heads in arguments.formHeads {
        var dimensions = arguments.dimensions
        dimensions.heads = heads
        let comparison = try SelectionComparison(library, dimensions: dimensions, kernelCase)
        for context in arguments.selectedContexts {
          let m = try comparison.measure(
            newTokens: new, contextLen: context, topk: topk, rounds: arguments.rounds)
          let rate = 2 * dimensions.selectedProducts(topk) * Double(new) / m.selected / 1e9
          print(
            "\(kernelCase), \(heads) heads, \(context) context: "
              + String(
                format: "dense %.3f, %d selected keys %.3f, %.2f times faster, %.0f GFLOP/s; ",
                m.dense / Double(new) * 1e3, topk, m.selected / Double(new) * 1e3, m.gain, rate)
              + String(
                format: "indexer %.3f, %.2f of the rate, with it %.2f times, shared by %d ranks %.2f",
                m.indexer / Double(new) * 1e3, m.indexerFraction, m.gainWithIndexer,
                SelectionComparison.ranks, m.gainWithIndexerShared))
          rows.append([
            "isa": kernelCase.isaName, "dtype": kernelCase.format.name, "heads": heads,
            "context": context, "new_tokens": new, "topk": topk, "dense_seconds": m.dense,
            "selected_seconds": m.selected, "indexer_seconds": m.indexer,
            "indexer_fraction": m.indexerFraction, "indexer_shared_seconds": m.indexerShared,
          ])
        }
      }
    }
    guard let file = arguments.json else { return }
    let report: [String: Any] = [
      "version": library.version, "cpu": library.cpuSummary, "threads": library.numThreads,
      "rounds": arguments.rounds, "selected": rows,
    ]
    try JSONSerialization.data(withJSONObject: report, options: [.prettyPrinted, .sortedKeys])
      .write(to: URL(fileURLWithPath: file))
  }
}

extension MLADimensions {
  /// Products of a token's heads with so many keys, and of these with what takes queries to
  /// latents and results to values.
  fileprivate func selectedProducts(_ topk: Int) -> Double {
    Double(heads) * Double(topk * (2 * kvLoraRank + rope) + kvLoraRank * (nope + v))
  }
}
