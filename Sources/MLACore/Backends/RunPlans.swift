/// The plans of a batch. A layer's run makes the one that it needs if none has
/// before; the runs of the other layers find it. One made for another number of
/// threads than the host now grants is made again.
final class RunPlans: Sendable {
  enum Run {
    case newTokens
    /// By its index.
    case chunk(Int)
  }

  /// A place for each dtype of each run. It owns what it holds.
  private let made: Guarded<FixedArray<Unmanaged<RunPlan>?>>

  init(chunks: Int) throws(MLAError) {
    made = Guarded(
      try FixedArray(
        repeating: nil, count: (1 + chunks) * Self.typeCount, for: "plans of a batch's runs"))
  }

  deinit {
    made.withLock { made in
      for plan in made { plan?.release() }
    }
  }

  func plan(
    of run: Run, _ type: ElementType, _ make: (_ mostThreads: Int) throws(MLAError) -> RunPlan
  ) throws(MLAError) -> RunPlan {
    let threads = HostSettings.threads
    if let plan = known(run, type, threads: threads) { return plan }
    // Runs that make the same plan at the same time waste one, and do not wait.
    let plan = try make(threads)
    if Shortage.isPresent { return plan }
    let place = Self.place(run, type)
    let displaced = made.withLock { made in
      let displaced = made[place]
      made[place] = Unmanaged.passRetained(plan)
      return displaced
    }
    displaced?.release()
    return plan
  }

  /// One that has been made for that number of threads.
  func known(_ run: Run, _ type: ElementType, threads: Int) -> RunPlan? {
    let plan = made.withLock { $0[Self.place(run, type)]?.takeUnretainedValue() }
    return plan?.mostThreads == threads ? plan : nil
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
