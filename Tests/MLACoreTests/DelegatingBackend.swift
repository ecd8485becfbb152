import CMLAPrefill
import MLACore

/// A registered backend that lets a built-in one compute: what a layer makes of it
/// must agree with what the layer makes of the built-in one itself.
final class DelegatingBackend: Sendable {
  struct Log {
    var instances = 0
    var batches: [[Int32]] = []
    var newTokenRuns = 0
    var quantizedRuns = 0
    /// Keys of each chunk that was run.
    var chunkRows: [Int64] = []
    /// Broken rules of the header, in what the backend was handed.
    var complaints: [String] = []
  }

  let log = Guarded(Log())
  /// The runs, counted over all kinds, from which on it fails; nil: none.
  let failingRun: Int?
  /// Called once, by the next run of new tokens before it does anything.
  let interruption = Guarded<(@Sendable () -> Void)?>(nil)
  private let builtIn: String

  /// Whether it says that it can write fp8.
  private let quantizes: Bool

  init(_ builtIn: String, failingRun: Int? = nil, quantizes: Bool = false) {
    self.builtIn = builtIn
    self.failingRun = failingRun
    self.quantizes = quantizes
  }

  var current: Log { log.withLock { $0 } }

  /// A vtable whose context is this object, which lives until its destroy_context
  /// is called.
  var vtable: mla_backend_vtable {
    var table = mla_backend_vtable()
    table.struct_size = UInt32(MemoryLayout<mla_backend_vtable>.size)
    table.context = Unmanaged.passRetained(self).toOpaque()
    table.destroy_context = { Unmanaged<DelegatingBackend>.fromOpaque($0!).release() }
    table.create = { context, config, instance in
      DelegatingBackend.from(context).create(config!, instance!)
    }
    table.destroy = { _, instance in Unmanaged<BackendObject>.fromOpaque(instance!).release() }
    table.prepare_metadata = { context, instance, metadata in
      DelegatingBackend.from(context).prepare(object(instance), metadata!)
    }
    table.run_prefill_new_tokens = { context, instance, args in
      DelegatingBackend.from(context).runNewTokens(object(instance), args!)
    }
    table.run_prefill_context_chunk = { context, instance, args in
      DelegatingBackend.from(context).runChunk(object(instance), args!)
    }
    table.supports_quant_output = { context, _, dtype in
      let mine = DelegatingBackend.from(context)
      return mine.quantizes && dtype == Int32(MLA_DTYPE_FLOAT8_E4M3FN) ? 1 : 0
    }
    table.workspace_size = { _, instance in (try? object(instance).workspaceSize()) ?? -1 }
    return table
  }

  private static func from(_ context: UnsafeMutableRawPointer?) -> DelegatingBackend {
    Unmanaged.fromOpaque(context!).takeUnretainedValue()
  }

  private func create(
    _ config: UnsafePointer<mla_backend_config>,
    _ instance: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  ) -> mla_status {
    log.withLock { $0.instances += 1 }
    var own = config.pointee
    own.ignore_override = 1
    return status {
      let object = try Registry.shared.makeBackend(builtIn, &own)
      instance.pointee = Unmanaged.passRetained(object).toOpaque()
    }
  }

  private func prepare(_ object: BackendObject, _ metadata: UnsafePointer<mla_prefill_metadata>)
    -> mla_status
  {
    let m = metadata.pointee
    let offsets = UnsafeBufferPointer(start: m.query_start_loc, count: Int(m.num_requests) + 1)
    log.withLock { $0.batches.append(Array(offsets)) }
    return status { try object.prepareMetadata(metadata) }
  }

  private func runNewTokens(_ object: BackendObject, _ args: UnsafePointer<mla_new_tokens_args>)
    -> mla_status
  {
    let a = args.pointee
    let interruption = interruption.withLock { once in
      defer { once = nil }
      return once
    }
    interruption?()
    let fails = log.withLock { log in
      log.newTokenRuns += 1
      if a.output_scale != nil { log.quantizedRuns += 1 }
      for tensor in [a.k, a.v, a.out] where tensor!.pointee.shape.0 != a.q.pointee.shape.0 {
        log.complaints.append("rows of a run of new tokens differ")
      }
      return log.fails(from: failingRun)
    }
    return fails ? failure : status { try object.runPrefillNewTokens(args) }
  }

  private func runChunk(_ object: BackendObject, _ args: UnsafePointer<mla_context_chunk_args>)
    -> mla_status
  {
    let a = args.pointee
    let chunk = a.chunk.pointee
    let (queries, keys) = (
      Int64(chunk.query_start_loc[Int(chunk.num_requests)]),
      Int64(chunk.cu_seq_lens[Int(chunk.num_requests)])
    )
    let fails = log.withLock { log in
      log.chunkRows.append(keys)
      if a.q.pointee.shape.0 != queries { log.complaints.append("rows of a chunk's q") }
      if a.k.pointee.shape.0 != keys { log.complaints.append("rows of a chunk's k") }
      if a.q.pointee.dtype != a.out.pointee.dtype { log.complaints.append("a chunk's dtypes") }
      for i in 0..<Int(chunk.num_requests)
      where chunk.query_start_loc[i] == chunk.query_start_loc[i + 1]
        || chunk.cu_seq_lens[i] == chunk.cu_seq_lens[i + 1]
      {
        log.complaints.append("an empty row of a chunk")
      }
      return log.fails(from: failingRun)
    }
    return fails ? failure : status { try object.runPrefillContextChunk(args) }
  }

  /// What a failing run returns, after its message.
  static let failure = mla_status(MLA_ERROR_UNSUPPORTED_HARDWARE)
  static let failureMessage = "the delegate has had enough"

  private var failure: mla_status {
    LastError.set(Self.failureMessage)
    return Self.failure
  }

  private func status(_ work: () throws -> Void) -> mla_status {
    do {
      try work()
      return mla_status(MLA_OK)
    } catch {
      LastError.set("\(error)")
      return (error as? MLAError)?.status ?? mla_status(MLA_ERROR_INTERNAL)
    }
  }
}

extension DelegatingBackend.Log {
  fileprivate func fails(from run: Int?) -> Bool {
    run.map { newTokenRuns + chunkRows.count > $0 } ?? false
  }
}

private func object(_ instance: UnsafeMutableRawPointer?) -> BackendObject {
  Unmanaged.fromOpaque(instance!).takeUnretainedValue()
}
