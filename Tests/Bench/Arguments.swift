import Foundation
import MLABenchSupport
import MLATestSupport

/// What the command line asks for.
struct Arguments {
  var shapes = [BatchShape(tokens: 2048), BatchShape(tokens: 4096)]
  var dimensions = MLADimensions()
  var formats: [ElementFormat] = [.bfloat16]
  /// Names of tables, or "all"; nil: the strongest that the host has.
  var tables: [String]?
  var backend: String?
  var threads: Int?
  var rounds = 9
  var secondsPerCase = 4.0
  var library: String?
  var json: String?
  var measuresMemory = true
  /// Context lengths at which the layer's two forms are compared, in place of
  /// everything else.
  var formContexts: [Int] = []
  /// Context lengths at which attention to selected keys is compared with that to all, likewise.
  var selectedContexts: [Int] = []
  var topk = 2048
  var formNewTokens = [1, 4, 16, 64, 96, 128, 160, 192]
  var formHeads = [16, 128]
  /// The command line of a child that prints its peak memory.
  var isMemoryChild = false

  static let usage = """
    mla-bench [options]: prefill attention through libmlaprefill's C ABI, against plain OpenBLAS fp32
      --seq N,RxN,...       tokens of the request, or of each of R requests (2048,4096)
      --heads N             (16)
      --dims NOPE/ROPE/V    head dimensions (128/64/128)
      --dtype bf16,fp16,fp32
      --isa all | NAME,...  kernel tables: portable, avx2, avx512, avx512_bf16, amx (the strongest)
      --backend NAME        (the selector's choice)
      --threads N           (the processors this process may run on)
      --rounds N            most samples of a case (9)
      --seconds S           a case that took longer in all gets no further samples (4)
      --library PATH        (libmlaprefill.so beside this program)
      --json FILE           writes the results as JSON too
      --forms N,N,...       instead: the layer's two forms at these context lengths
      --new N,N,...         with --forms: new tokens (1,4,16,64,...,192)
      --form-heads N,N,...  with --forms: (16,128)
      --selected N,N,...    instead: attention to selected keys and to all at these context
                            lengths, of the largest number of --new
      --topk N              with --selected: keys of a token (2048)
      --no-memory           leaves out peak memory at 2048 and 8192 tokens
    """

  /// Beyond any request that fits a machine.
  private static let largest = 1 << 20

  struct Invalid: Error { let message: String }

  init(_ words: [String]) throws {
    var words = words[...]
    func value(_ option: String) throws -> String {
      guard let value = words.popFirst() else { throw Invalid(message: "\(option) needs a value") }
      return value
    }
    func numbers(_ option: String, separator: Character = ",", from least: Int = 1) throws -> [Int] {
      let text = try value(option)
      let all = text.split(separator: separator).map { Int($0) ?? -1 }
      guard !all.isEmpty, all.allSatisfy((least...Self.largest).contains) else {
        throw Invalid(message: "\(option) \(text): not numbers from \(least) to \(Self.largest)")
      }
      return all
    }
    while let option = words.popFirst() {
      switch option {
      case "--seq":
        shapes = try value(option).split(separator: ",").map {
          guard let shape = BatchShape($0), (1...Self.largest).contains(shape.tokens),
            (1...Self.largest).contains(shape.requests)
          else { throw Invalid(message: "--seq \($0): not N or RxN") }
          return shape
        }
      case "--heads": dimensions.heads = try numbers(option)[0]
      case "--dims":
        let dims = try numbers(option, separator: "/", from: 0)
        guard dims.count == 3, dims[0] + dims[1] > 0, dims[2] > 0 else { throw Invalid(message: "--dims: NOPE/ROPE/V") }
        (dimensions.nope, dimensions.rope, dimensions.v) = (dims[0], dims[1], dims[2])
      case "--dtype":
        formats = try value(option).split(separator: ",").map {
          guard let format = ElementFormat(name: String($0)), ElementFormat.inputs.contains(format)
          else { throw Invalid(message: "--dtype \($0): not bf16, fp16 or fp32") }
          return format
        }
      case "--isa": tables = try value(option).split(separator: ",").map(String.init)
      case "--backend": backend = try value(option)
      case "--threads": threads = try numbers(option)[0]
      case "--rounds": rounds = try numbers(option)[0]
      case "--seconds": secondsPerCase = Double(try value(option)) ?? secondsPerCase
      case "--library": library = try value(option)
      case "--json": json = try value(option)
      case "--forms": formContexts = try numbers(option)
      case "--selected": selectedContexts = try numbers(option)
      case "--topk": topk = try numbers(option)[0]
      case "--new": formNewTokens = try numbers(option)
      case "--form-heads": formHeads = try numbers(option)
      case "--no-memory": measuresMemory = false
      case "--memory-child": isMemoryChild = true
      default: throw Invalid(message: "unknown option \(option)")
      }
    }
  }

  /// The kernels asked for, of those that the host has.
  func cases(bestISA: Int32) throws -> [KernelCase] {
    let all = KernelCase.all(upTo: bestISA).filter { formats.contains($0.format) }
    guard let tables else { return all.filter { $0.isa == bestISA } }
    if tables == ["all"] { return all }
    let chosen = all.filter { tables.contains($0.isaName) }
    guard !chosen.isEmpty else {
      throw Invalid(message: "--isa \(tables.joined(separator: ",")): not on this host")
    }
    return chosen
  }
}
