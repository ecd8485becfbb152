/// Plans of the calls before: those of a model's layers ask for the same one after the other.
public enum AttentionPlans {
  /// Owns what it holds, in place: keeping a plan takes no memory.
  private struct Kept: @unchecked Sendable {
    /// Addresses, 0 where there is none: the array in place that every standard library has.
    private var plans = SIMD16<UInt>()
    /// The oldest, whose place the next one takes.
    var oldest = 0

    var indices: Range<Int> { 0..<plans.scalarCount }

    subscript(index: Int) -> Unmanaged<AttentionPlan>? {
      get { UnsafeRawPointer(bitPattern: plans[index]).map(Unmanaged.fromOpaque) }
      set { plans[index] = newValue.map { UInt(bitPattern: $0.toOpaque()) } ?? 0 }
    }
  }

  private static let kept = Guarded(Kept())
  /// Of a plan that is kept: more of them are little to plan beside what they are to run.
  static let mostRequests = 512

  /// A kept one, or one that then is.
  static func plan(for key: AttentionKey) throws(MLAError) -> AttentionPlan {
    if let plan = known(key) { return plan }
    // Calls that make the same plan at the same time waste one, and do not wait.
    let plan = try AttentionPlan(key)
    if key.requests.count <= mostRequests, !Shortage.isPresent { keep(plan) }
    return plan
  }

  /// Only what resembles is looked for under the lock, and then compared.
  static func known(_ key: AttentionKey) -> AttentionPlan? {
    let alike = kept.withLock { kept -> AttentionPlan? in
      for index in kept.indices {
        let plan = kept[index]?.takeUnretainedValue()
        if let plan, plan.key.resembles(key) { return plan }
      }
      return nil
    }
    return alike?.key == key ? alike : nil
  }

  private static func keep(_ plan: AttentionPlan) {
    let displaced = kept.withLock { kept in
      let displaced = kept[kept.oldest]
      kept[kept.oldest] = Unmanaged.passRetained(plan)
      kept.oldest = (kept.oldest + 1) % kept.indices.count
      return displaced
    }
    displaced?.release()
  }

  /// Forgets all of them.
  public static func drop() {
    let dropped = kept.withLock { kept in
      defer { kept = Kept() }
      return kept
    }
    for index in dropped.indices { dropped[index]?.release() }
  }
}
