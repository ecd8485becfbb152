import CMLAPrefill
import MLAShims
import XCTest

@testable import MLACore

/// What a vtable must bring, and how long its context lives.
final class RegistryVTableTests: XCTestCase {
  private let registry = Registry()

  func testMissingFunctionsAreNamed() {
    let probe = BackendProbe()
    let broken: [(String, (inout mla_backend_vtable) -> Void)] = [
      ("create", { $0.create = nil }),
      ("run_prefill_new_tokens", { $0.run_prefill_new_tokens = nil }),
      ("run_prefill_context_chunk", { $0.run_prefill_context_chunk = nil }),
    ]
    for (field, breakIt) in broken {
      var table = probe.vtable
      breakIt(&table)
      XCTAssertEqual(
        mlaError { try request(vtable: table) },
        MLAError(
          MLA_ERROR_INVALID_ARGUMENT, "registration.vtable.\(field) = NULL: must not be NULL"))
    }
    XCTAssertEqual(probe.destroyCount, 0)
  }

  func testSizesAndReservedFieldsAreChecked() {
    let probe = BackendProbe()
    for size in [0, 8, 103, 4097, UInt32.max] as [UInt32] {
      var table = probe.vtable
      table.struct_size = size
      XCTAssertTrue(
        mlaError { try request(vtable: table) }?.message
          .hasPrefix("registration.vtable.struct_size = \(size): ") == true)
    }
    var table = probe.vtable
    table.reserved = 7
    XCTAssertEqual(
      mlaError { try request(vtable: table) }?.message,
      "registration.vtable.reserved = 7: must be 0")
    var registration = mla_backend_registration()
    registration.struct_size = 24
    XCTAssertEqual(
      mlaError { try Registration(&registration) }?.message,
      "registration.class_path = NULL: class_path or vtable must be given")
    registration.reserved = 1
    XCTAssertEqual(
      mlaError { try Registration(&registration) }?.message,
      "registration.reserved = 1: must be 0")
    XCTAssertEqual(
      mlaError { try Registration(nil) }?.message, "registration = NULL: must not be NULL")
  }

  func testBackendNameIsCopied() throws {
    let name = strdup("MINE")!
    var table = BackendProbe().vtable
    table.destroy_context = nil
    table.backend_name = UnsafePointer(name)
    try registry.override("CUSTOM", request(vtable: table))
    memset(name, 0x58, 4)
    free(name)
    XCTAssertEqual(try registry.member("CUSTOM").backendName, "MINE")
    guard case .registered(let backend) = try registry.implementation(of: "CUSTOM") else {
      return XCTFail("not the registered one")
    }
    XCTAssertNil(backend.vtable.backend_name, "nobody may read what is the caller's")
  }

  func testVTableWithoutPathHasNone() throws {
    let probe = BackendProbe()
    try registry.override("FLASH_ATTN", request(probe))
    XCTAssertNil(try registry.member("FLASH_ATTN").classPath())
    XCTAssertEqual(try registry.member("FLASH_ATTN").backendName, "FLASH_ATTN")
    guard case .registered(let backend) = try registry.implementation(of: "FLASH_ATTN") else {
      return XCTFail("not the registered one")
    }
    XCTAssertEqual(backend.vtable.context, probe.vtable.context)
  }

  func testRefusedRegistrationLeavesTheContextAlone() throws {
    let probe = BackendProbe()
    for name in ["CPU", "not a name"] {
      let refused = try request(probe)
      XCTAssertNotNil(mlaError { try self.registry.register(name, refused) })
    }
    let unknown = try request(probe)
    XCTAssertNotNil(mlaError { try self.registry.override("UNKNOWN", unknown) })
    XCTAssertEqual(probe.destroyCount, 0)
  }

  func testNothingIsKeptThatMemoryWasShortFor() throws {
    let probe = BackendProbe()
    let late = try request(probe)
    _ = mla_shim_set_short(1)
    let error = mlaError { try self.registry.register("MINE", late) }
    _ = mla_shim_set_short(0)
    XCTAssertEqual(error?.status, mla_status(MLA_ERROR_OUT_OF_MEMORY))
    XCTAssertNotNil(mlaError { try self.registry.member("MINE") })
    XCTAssertEqual(probe.destroyCount, 0)
  }

  func testContextGoesWithWhatDisplacesIt() throws {
    let probes = (0..<5).map { _ in BackendProbe() }
    try registry.override("CPU", request(probes[0]))
    try registry.override("CPU", request(probes[1]))
    XCTAssertEqual(probes.map(\.destroyCount), [1, 0, 0, 0, 0])
    try registry.override("CPU", nil)
    try registry.override("CPU", nil)
    XCTAssertEqual(probes.map(\.destroyCount), [1, 1, 0, 0, 0])
    try registry.register("MINE", request(probes[2]))
    try registry.override("MINE", request(probes[3]))
    XCTAssertEqual(probes.map(\.destroyCount), [1, 1, 0, 0, 0])
    try registry.remove("MINE")
    XCTAssertEqual(probes.map(\.destroyCount), [1, 1, 1, 1, 0])
    try registry.register("MINE", request(probes[4]))
    XCTAssertEqual(probes.map(\.destroyCount), [1, 1, 1, 1, 0])
  }

  func testContextOutlivesItsRegistrationWhileAnObjectLives() throws {
    let probe = BackendProbe()
    try registry.register("MINE", request(probe))
    var objects = [
      try registry.implementation(of: "MINE"), try registry.implementation(of: "MINE"),
    ]
    try registry.remove("MINE")
    XCTAssertEqual(probe.destroyCount, 0)
    objects.removeLast()
    XCTAssertEqual(probe.destroyCount, 0)
    objects.removeLast()
    XCTAssertEqual(probe.destroyCount, 1)
  }

  func testForeignCodeRunsOutsideTheLock() throws {
    let registry = Registry()
    // Would wait for itself for ever if the lock were held.
    let probe = BackendProbe { _ in _ = registry.snapshot() }
    let selector = Selector(registry: registry, servesZenCPU: false)
    let config = SelectorConfig(
      dtype: .bfloat16, dimensions: .deepSeek, backend: "CPU")
    try registry.override("CPU", request(probe))
    XCTAssertEqual(try selector.select(config), "CPU")
    _ = try BackendList(selector, config)
    try registry.override("CPU", request(probe))
    try registry.override("CPU", nil)
    try registry.register("MINE", request(probe))
    try registry.remove("MINE")
    XCTAssertEqual(probe.destroyCount, 3)
    XCTAssertEqual(probe.validateCount, 2)
  }
}
