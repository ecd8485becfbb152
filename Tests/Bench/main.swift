import Foundation
import MLABenchSupport
import MLATestSupport

func fail(_ message: String, _ status: Int32) -> Never {
  FileHandle.standardError.write(Data((message + "\n").utf8))
  exit(status)
}

do {
  let words = Array(CommandLine.arguments.dropFirst())
  if words.contains("--help") {
    print(Arguments.usage)
    exit(0)
  }
  let arguments = try Arguments(words)
  if !arguments.selectedContexts.isEmpty {
    try SelectionBenchmark(arguments).run()
  } else if arguments.formContexts.isEmpty {
    try Benchmark(arguments, words: words).run()
  } else {
    try FormBenchmark(arguments).run()
  }
} catch let error as Arguments.Invalid {
  fail("mla-bench: \(error.message)\n\(Arguments.usage)", 2)
} catch {
  fail("mla-bench: \(error)", 1)
}
