/// Plans of the calls before: those of a model's layers ask for the same one after the other.
public enum AttentionPlans {
  /// Owns what it holds, in place: keeping a plan takes no memory.
  private struct Kept: @unchecked Sendable {
    var plans = InlineArray<16, Unmanaged<AttentionPlan>?>(repeating: nil)
    /// The oldest, whose place the next one takes.
    var oldest = 0
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
      for index in kept.plans.indices {
        let plan = kept.plans[index]?.takeUnretainedValue()
        if let plan, plan.key.resembles(key) { return plan }
      }
      return nil
    }
    return alike?.key == key ? alike : nil
  }

  private static func keep(_ plan: AttentionPlan) {
    let displaced = kept.withLock { kept in
      let displaced = kept.plans[kept.oldest]
      kept.plans[kept.oldest] = Unmanaged.passRetained(plan)
      kept.oldest = (kept.oldest + 1) % kept.plans.count
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
    for index in dropped.plans.indices { dropped.plans[index]?.release() }
  }
}
