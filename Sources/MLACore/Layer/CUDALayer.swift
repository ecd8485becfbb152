import CMLAPrefill

/// A layer on a CUDA device whose attention is the library's own: a request's context and new
/// tokens are one sequence of keys.
struct CUDALayer: Sendable {
  private let place: CUDALayerPlace
  private let attention: CUDAAttention

  init(_ place: CUDALayerPlace) throws(MLAError) {
    self.place = place
    attention = try CUDAAttention(place.device, place.config.attention)
  }

  func forward(_ arguments: LayerArguments) throws(MLAError) {
    if arguments.batch.queryStartLoc.rowCount == 0 { return }
    let plan = try plan(arguments.batch)
    try place.withMemory(of: plan.bytes, arguments) { start, launcher throws(MLAError) in
      let launches = CUDALayerLaunches(place: place, arguments: arguments, launcher: launcher)
      for round in plan.rounds { try run(round, plan, launches, start) }
    }
  }

  func workspaceBytes(_ batch: LayerBatch) throws(MLAError) -> Int {
    batch.queryStartLoc.rowCount == 0 ? 0 : try plan(batch).bytes
  }

  private func plan(_ batch: LayerBatch) throws(MLAError) -> CUDALayerPlan {
    try CUDALayerPlan(batch, place.config, attention)
  }

  private func run(
    _ round: CUDALayerPlan.Round, _ plan: CUDALayerPlan, _ launches: CUDALayerLaunches,
    _ start: UnsafeMutableRawPointer
  ) throws(MLAError) {
    let arguments = launches.arguments
    let spans = try plan.spans(round.requests)
    if spans.queries.rowCount == 0 { return }
    let memory = CUDALayerMemory(round, place.config)
    let tokens = CUDALayerLaunches.Tokens(at: start, rows: round.rows, place.config)
    try launches.gather(plan.keys(round), into: tokens)
    let first = arguments.batch.queryStartLoc.begin(round.requests.lowerBound)
    let rows = first..<first + spans.queries.rowCount
    var head = 0
    while head < place.config.attention.numHeads {
      let heads = head..<min(head + round.heads, place.config.attention.numHeads)
      let (keys, projected) = (
        memory.keys(start, heads: heads.count), memory.projected(start, heads: heads.count)
      )
      try launches.project(tokens, heads, to: projected)
      try launches.concat(projected, tokens, to: keys)
      let width = projected.shape[2]
      try attention.run(
        spans,
        RunArguments(
          q: arguments.q.narrowed(0, to: rows).narrowed(1, to: heads), k: keys,
          v: projected.narrowed(2, to: width - place.config.attention.vHeadDim..<width),
          out: arguments.out.narrowed(0, to: rows).narrowed(1, to: heads),
          outputScale: arguments.outputScale,
          lse: arguments.lse?.narrowed(0, to: heads).narrowed(1, to: rows),
          workspace: try memory.workspace(start), stream: arguments.stream), launches.launcher)
      head = heads.upperBound
    }
  }
}
