import MLAKernelABI

extension ParallelLoop {
  /// Workers take tasks one by one, in order, until none is left.
  ///
  /// - Parameter kernel: what the workers are to be ready for.
  static func runTasks(
    _ count: Int, workers: Int, _ kernel: mla_attention_kernel? = nil,
    _ body: (_ task: Int, _ worker: Int) -> Void
  ) {
    if count == 0 { return }
    let tickets = TicketCounter()
    run(workers: min(workers, count)) { worker in
      kernel?.enter?()
      while let task = tickets.take(below: count) { body(task, worker) }
      kernel?.leave?()
    }
  }

  /// Rows that need little work each, some of one head at a time.
  static func runRows(
    _ count: Int, heads: Int = 1, _ body: (_ rows: Range<Int>, _ head: Int) -> Void
  ) {
    let chunks = (count + rowsPerTask - 1) / rowsPerTask
    runTasks(chunks * heads, workers: HostSettings.threads) { task, _ in
      let (chunk, head) = task.quotientAndRemainder(dividingBy: heads)
      let first = chunk * rowsPerTask
      body(first..<min(first + rowsPerTask, count), head)
    }
  }

  /// The same of whole rows, by workers that have something to themselves.
  static func runRows(
    _ count: Int, workers: Int, _ body: (_ rows: Range<Int>, _ worker: Int) -> Void
  ) {
    runTasks((count + rowsPerTask - 1) / rowsPerTask, workers: workers) { task, worker in
      let first = task * rowsPerTask
      body(first..<min(first + rowsPerTask, count), worker)
    }
  }

  /// Few enough for an even finish, enough to outweigh taking a task.
  private static let rowsPerTask = 64
}
