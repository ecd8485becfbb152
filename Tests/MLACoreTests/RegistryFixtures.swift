import CMLAPrefill
import Synchronization
import XCTest

@testable import MLACore

/// The context behind a test's vtable: counts what the library does with it.
final class BackendProbe: Sendable {
  let name: String
  /// What `validate` reports.
  let reasons: [String]
  let validateStatus: Int32
  let destroyed = Atomic<Int>(0)
  let validated = Atomic<Int>(0)
  /// Called by `validate` and `destroy_context`: both must be outside any lock.
  let onCallback: @Sendable (String) -> Void

  init(
    _ name: String = "PROBE", reasons: [String] = [], validateStatus: Int = MLA_OK,
    onCallback: @escaping @Sendable (String) -> Void = { _ in }
  ) {
    self.name = name
    self.reasons = reasons
    self.validateStatus = Int32(validateStatus)
    self.onCallback = onCallback
  }

  var destroyCount: Int { destroyed.load(ordering: .sequentiallyConsistent) }
  var validateCount: Int { validated.load(ordering: .sequentiallyConsistent) }

  /// A complete vtable whose context is this probe, which lives until its
  /// destroy_context is called.
  var vtable: mla_backend_vtable {
    var table = mla_backend_vtable()
    table.struct_size = UInt32(MemoryLayout<mla_backend_vtable>.size)
    table.context = Unmanaged.passRetained(self).toOpaque()
    table.destroy_context = { context in
      let probe = BackendProbe.from(context)
      probe.destroyed.add(1, ordering: .sequentiallyConsistent)
      probe.onCallback(probe.name)
      Unmanaged.passUnretained(probe).release()
    }
    table.validate = { context, _, sink, sinkContext in
      let probe = BackendProbe.from(context)
      probe.validated.add(1, ordering: .sequentiallyConsistent)
      probe.onCallback(probe.name)
      for reason in probe.reasons { sink?(sinkContext, reason) }
      return probe.validateStatus
    }
    table.create = { _, _, _ in mla_status(MLA_OK) }
    table.run_prefill_new_tokens = { _, _, _ in mla_status(MLA_OK) }
    table.run_prefill_context_chunk = { _, _, _ in mla_status(MLA_OK) }
    return table
  }

  private static func from(_ context: UnsafeMutableRawPointer?) -> BackendProbe {
    Unmanaged<BackendProbe>.fromOpaque(context!).takeUnretainedValue()
  }
}

/// A registration as a C caller would hand it in.
func request(path: String? = nil, vtable: mla_backend_vtable? = nil) throws(MLAError)
  -> Registration
{
  var registration = mla_backend_registration()
  registration.struct_size = UInt32(MemoryLayout<mla_backend_registration>.size)
  let cPath = path?.utf8CString
  let result = withUnsafeTemporaryAllocation(of: mla_backend_vtable.self, capacity: 1) { table in
    if let vtable {
      table.initializeElement(at: 0, to: vtable)
      registration.vtable = UnsafePointer(table.baseAddress)
    }
    guard let cPath else { return Result { () throws(MLAError) in try Registration(&registration) } }
    return cPath.withUnsafeBufferPointer { path in
      registration.class_path = path.baseAddress
      return Result { () throws(MLAError) in try Registration(&registration) }
    }
  }
  return try result.get()
}

func request(_ probe: BackendProbe, path: String? = nil) throws(MLAError) -> Registration {
  try request(path: path, vtable: probe.vtable)
}

/// The error that `body` throws; fails the test if it throws none.
func mlaError(
  file: StaticString = #filePath, line: UInt = #line, _ body: () throws -> some Any
) -> MLAError? {
  do {
    _ = try body()
    XCTFail("threw nothing", file: file, line: line)
    return nil
  } catch {
    guard let error = error as? MLAError else {
      XCTFail("threw \(error)", file: file, line: line)
      return nil
    }
    return error
  }
}
