import MLAKernelABI

/// What a run needs to know beside its tensors.
final class RunPlan: @unchecked Sendable {
  let kernel: mla_attention_kernel
  let schedule: TileSchedule
  let memory: AttentionMemory
  /// The number of threads that were to be had when it was made.
  let mostThreads: Int

  init(
    kernel: mla_attention_kernel, schedule: TileSchedule, memory: AttentionMemory,
    mostThreads: Int
  ) {
    self.kernel = kernel
    self.schedule = schedule
    self.memory = memory
    self.mostThreads = mostThreads
  }
}

/// The plans of a batch. A layer's run makes the one that it needs if none has
/// before; the runs of the other layers find it. One made for another number of
/// threads than the host now grants is made again.
final class RunPlans: Sendable {
  enum Run {
    case newTokens
    /// By its index.
    case chunk(Int)
  }

  /// A place for each dtype of each run.
  private let made: Guarded<[RunPlan?]>

  init(chunks: Int) {
    made = Guarded(Array(repeating: nil, count: (1 + chunks) * Self.typeCount))
  }

  func plan(of run: Run, _ type: ElementType, _ make: (_ mostThreads: Int) -> RunPlan) -> RunPlan {
    let (place, threads) = (Self.place(run, type), HostSettings.threads)
    if let plan = made.withLock({ $0[place] }), plan.mostThreads == threads { return plan }
    // Runs that make the same plan at the same time waste one, and do not wait.
    let plan = make(threads)
    if Shortage.isPresent { return plan }
    let displaced = made.withLock { made in
      let displaced = made[place]
      made[place] = plan
      return displaced
    }
    _ = consume displaced
    return plan
  }

  private static let typeCount = ElementType.allCases.count

  private static func place(_ run: Run, _ type: ElementType) -> Int {
    let first =
      switch run {
      case .newTokens: 0
      case .chunk(let index): 1 + index
      }
    // Types are numbered from 1 on.
    return first * typeCount + Int(type.rawValue) - 1
  }
}
