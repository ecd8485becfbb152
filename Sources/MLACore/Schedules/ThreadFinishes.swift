/// When each of some threads that take tasks in order will be done.
struct ThreadFinishes {
  /// A heap: no entry is above the two at twice its place, plus one and two.
  private var finishes: [Int]
  private(set) var last = 0

  init(_ threads: Int) { finishes = Array(repeating: 0, count: max(1, threads)) }

  /// The next task goes to the thread that is free first.
  mutating func add(_ cost: Int) {
    let finish = finishes[0] + cost
    last = max(last, finish)
    var place = 0
    while true {
      var child = 2 * place + 1
      guard child < finishes.count else { break }
      if child + 1 < finishes.count, finishes[child + 1] < finishes[child] { child += 1 }
      guard finishes[child] < finish else { break }
      finishes[place] = finishes[child]
      place = child
    }
    finishes[place] = finish
  }

  /// The same for many tasks of one cost, in a time that does not grow with them.
  mutating func add(_ cost: Int, count: Int) {
    var left = count
    if cost > 0, count > 2 * finishes.count {
      // Tasks start in their order: those that start before some time are the first.
      let latest = last + (count / finishes.count + 1) * cost
      let time = lastNumber(in: finishes[0]..<latest + 1) { tasks(before: $0, cost) <= count }
      for thread in finishes.indices {
        let tasks = tasks(of: thread, before: time, cost)
        finishes[thread] += tasks * cost
        if tasks > 0 { last = max(last, finishes[thread]) }
        left -= tasks
      }
      finishes.sort()
    }
    for _ in 0..<left { add(cost) }
  }

  private func tasks(before time: Int, _ cost: Int) -> Int {
    finishes.indices.reduce(0) { $0 + tasks(of: $1, before: time, cost) }
  }

  /// How many tasks a thread starts before a time.
  private func tasks(of thread: Int, before time: Int, _ cost: Int) -> Int {
    max(0, (time - finishes[thread] + cost - 1) / cost)
  }
}
