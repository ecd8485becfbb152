import MLABenchSupport
import MLATestSupport

/// One computed state against the recorded one.
struct Check {
  static let outBound = 4e-3
  static let lseBound = 1e-3

  static let header =
    "  " + Table.pad("", 28) + Table.pad("out, rel. L2", 12, right: true)
    + Table.pad("lse, largest", 14, right: true)

  let name: String
  let out: Double
  let lse: Double

  init(_ name: String, _ state: AttentionState, recorded out: String, _ lse: String, in file: Safetensors)
    throws
  {
    self.name = name
    self.out = relativeL2(state.out.values, try file[out].values)
    self.lse = maxDifference(state.lse.values, try file[lse].values)
  }

  var passes: Bool { out <= Self.outBound && lse <= Self.lseBound }

  var line: String {
    "  " + Table.pad(name, 28) + Table.scientific(out, 12) + Table.scientific(lse, 14)
      + (passes ? "   ok" : "   TOO LARGE")
  }
}
