import MLABenchSupport
import MLATestSupport

/// One computed state against the recorded one.
struct Check {
  static let outBound = 4e-3
  static let lseBound = 1e-3

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
    "  " + Table.pad(name, 34) + Table.number(out * 1e3, 8, 2) + "e-3"
      + Table.number(lse * 1e3, 10, 2) + "e-3   " + (passes ? "ok" : "TOO LARGE")
  }
}
