/// Carries out requests whose heads share keys, wave by wave.
protocol SharedKeyRun {
  associatedtype Keys: KeySource

  var schedule: SharedKeySchedule { get }
  var memory: SharedKeyMemory { get }
  var start: UnsafeMutableRawPointer { get }
  /// Taken before anything is written.
  var waves: SharedKeySchedule.Waves { get }
  var attention: SharedKeyAttention<Keys> { get set }

  /// `attention` has the wave's partial results.
  func work(on wave: SharedKeySchedule.Wave)
}

extension SharedKeyRun {
  func execute() {
    var (waves, run) = (waves, self)
    while let wave = waves.next() {
      run.attention.partials = (start + memory.partialsOffset(wave, schedule.shape))
        .assumingMemoryBound(to: Float.self)
      run.work(on: wave)
    }
  }

  func parallel(_ count: Int, _ body: (_ task: Int, _ worker: Int) -> Void) {
    ParallelLoop.runTasks(count, workers: memory.scratch.workers, attention.kernel, body)
  }

  func scratch(of worker: Int) -> UnsafeMutableRawPointer { memory.scratch.of(worker, start) }
}
