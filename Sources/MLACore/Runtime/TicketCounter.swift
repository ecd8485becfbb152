import Synchronization

/// Numbers the tasks of a phase: each is taken once, in order.
final class TicketCounter: Sendable {
  private let next = Atomic<Int>(0)

  /// The next task, nil once `count` have been taken.
  func take(below count: Int) -> Int? {
    let ticket = next.add(1, ordering: .relaxed).oldValue
    return ticket < count ? ticket : nil
  }
}
