import MLABenchSupport
import MLATestSupport

/// The engine steps recorded in Tests/Data, run again through the library.
struct Recording {
  let fresh: Safetensors
  let chunked: Safetensors
  let library: MLALibrary
  let dimensions: MLADimensions

  init(folder: String, library: MLALibrary) throws {
    fresh = try Safetensors(path: folder + "/dsv2_fresh.safetensors")
    chunked = try Safetensors(path: folder + "/dsv2_chunked.safetensors")
    self.library = library
    dimensions = MLADimensions(heads: try fresh["q"].shape[1])
  }

  func makeBackend() throws -> Backend {
    let scale = fresh.metadata["scale"].flatMap { Double($0) }
    return try Backend(library, dimensions: dimensions, scale: scale)
  }

  /// Prompts without anything cached.
  func checkFresh(_ backend: Backend) throws -> [Check] {
    let state = try newTokens(backend, fresh, k: "k", v: "v")
    return [try Check("prompts: new tokens", state, recorded: "out", "lse", in: fresh)]
  }

  /// Prompts of which two requests have cached context, in two chunks: new
  /// tokens, each chunk, then the merges that put them together.
  func checkChunked(_ backend: Backend) throws -> [Check] {
    let suffix = try newTokens(backend, chunked, k: "k_new", v: "v_new")
    let chunks = try (0...1).map { try contextChunk(backend, $0) }
    let merged = try AttentionState.merged(library, prefix: chunks[0], suffix: chunks[1])
    let context = merged.padded(toTokens: suffix.out.rows)
    let all = try AttentionState.merged(library, prefix: context, suffix: suffix)
    func check(_ name: String, _ state: AttentionState, _ prefix: String) throws -> Check {
      try Check(name, state, recorded: prefix + "out", prefix + "lse", in: chunked)
    }
    return [
      try check("suffixes: new tokens", suffix, "suffix_"),
      try check("context chunk 0", chunks[0], "chunk0_"),
      try check("context chunk 1", chunks[1], "chunk1_"),
      try check("merge of both chunks", context, "context_"),
      try check("merge with the new tokens", all, ""),
    ]
  }

  private func newTokens(
    _ backend: Backend, _ file: Safetensors, k: String, v: String
  ) throws -> AttentionState {
    let q = try HostTensor(file["q"], of: file)
    let state = emptyState(tokens: q.rows)
    try backend.prepare(queryStarts: file["query_start_loc"].integers)
    try backend.runNewTokens(
      q: q, k: HostTensor(file[k], of: file), v: HostTensor(file[v], of: file), out: state.out,
      lse: state.lse)
    return state
  }

  private func contextChunk(_ backend: Backend, _ index: Int) throws -> AttentionState {
    let starts = try chunked["query_start_loc"].integers
    let requests = try chunked["chunk\(index)_requests"].integers
    let rows = requests.flatMap { Int(starts[Int($0)])..<Int(starts[Int($0) + 1]) }
    let state = emptyState(tokens: rows.count)
    try backend.runContextChunk(
      queryStarts: chunked["chunk\(index)_query_start_loc"].integers,
      keyStarts: chunked["chunk\(index)_cu_seq_lens"].integers,
      q: HostTensor(chunked["q"], of: chunked).gather(rows),
      k: HostTensor(chunked["chunk\(index)_k"], of: chunked),
      v: HostTensor(chunked["chunk\(index)_v"], of: chunked), out: state.out, lse: state.lse)
    return state
  }

  private func emptyState(tokens: Int) -> AttentionState {
    AttentionState(.bfloat16, tokens: tokens, heads: dimensions.heads, dim: dimensions.v)
  }
}
