import MLAKernelABI

/// A layer on the CPU whose attention is the library's own: without K and V as whole tensors.
struct FusedLayer: Sendable {
  let place: CPULayerPlace
  let split: SplitRule

  private var config: LayerConfig { place.config }

  func forward(_ arguments: LayerArguments) throws(MLAError) {
    let keys = place.keys(arguments)
    let plan = try plan(arguments.batch)
    CallRecord.note(.cpu(keys.attention), threads: plan.threads)
    CallRecord.note { $0.form = plan.forms }
    func waves(_ part: LayerPlan.Absorbed) throws(MLAError) -> SharedKeySchedule.Waves {
      try SharedKeySchedule.Waves(part.schedule)
    }
    let (absorbed, selected) = (try plan.absorbed.map(waves), try plan.selected.map(waves))
    try withMemory(
      of: plan.bytes, in: arguments.workspace, query: "mla_layer_workspace_size"
    ) { start in
      if let part = plan.upProjected {
        AttentionRun(
          schedule: part.schedule, kernel: keys.attention, table: place.table,
          dims: config.attention.kernelDims, scale: Float(config.attention.scale),
          q: TensorRows(arguments.q), keys: keys, out: TensorRows(arguments.out),
          outMultiplier: arguments.outMultiplier, lse: arguments.lse.map(TensorRows.init(lse:)),
          memory: part.memory, start: start
        ).execute()
      }
      if let part = plan.absorbed, let absorbed {
        AbsorbedRun(part, keys, waves: absorbed, start: start).execute()
      }
      if let part = plan.selected, let selected {
        AbsorbedRun(part, keys, waves: selected, start: start).execute()
      }
    }
  }

  func workspaceBytes(_ batch: LayerBatch) throws(MLAError) -> Int { try plan(batch).bytes }

  private func plan(_ batch: LayerBatch) throws(MLAError) -> LayerPlan {
    try LayerPlan(batch, config, split: split, place.table)
  }
}
