import CMLAPrefill
import XCTest

@testable import MLACore

/// Names, class paths, overrides and dynamic members: vLLM's rules and texts.
final class RegistryTests: XCTestCase {
  private let registry = Registry()
  private let prefix = "vllm.v1.attention.backends.mla.prefill."

  private func path(_ name: String) throws -> String? { try registry.member(name).classPath() }

  func testMembersStandInOrderOfDefinition() {
    XCTAssertEqual(
      registry.snapshot().map(\.name),
      [
        "FLASH_ATTN", "FLASHINFER", "TRTLLM_RAGGED", "TOKENSPEED_MLA", "ROCM_AITER_FA", "CPU",
        "ZEN_CPU", "CUSTOM",
      ])
  }

  func testBuiltInsHaveVLLMsClassPaths() throws {
    let expected = [
      "FLASH_ATTN": "flash_attn.FlashAttnPrefillBackend",
      "FLASHINFER": "flashinfer.FlashInferPrefillBackend",
      "TRTLLM_RAGGED": "trtllm_ragged.TrtllmRaggedPrefillBackend",
      "TOKENSPEED_MLA": "tokenspeed_mla.TokenspeedMLAPrefillBackend",
      "ROCM_AITER_FA": "aiter_flash_attn.AiterFlashAttnPrefillBackend",
      "CPU": "cpu_sdpa.CPUSDPAMLAPrefillBackend",
      "ZEN_CPU": "zen_cpu_sdpa.ZenCPUSDPAMLAPrefillBackend",
    ]
    for (name, path) in expected { XCTAssertEqual(try self.path(name), prefix + path) }
  }

  func testBuiltInsCallThemselvesAsInVLLM() throws {
    for backend in BuiltInBackend.allCases {
      let expected = ["CPU": "CPU_SDPA_MLA", "ZEN_CPU": "ZEN_CPU_SDPA_MLA"][backend.name]
      XCTAssertEqual(try registry.member(backend.name).backendName, expected ?? backend.name)
    }
  }

  func testCustomMustBeRegisteredBeforeUse() throws {
    let expected =
      "MLA prefill backend CUSTOM must be registered before use. Use register_mla_prefill_backend("
      + "MLAPrefillBackendEnum.CUSTOM, 'your.module.YourClass')"
    for error in [
      mlaError { try self.path("CUSTOM") },
      mlaError { try self.registry.implementation(of: "CUSTOM") },
    ] {
      XCTAssertEqual(error?.message, expected)
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_NOT_REGISTERED))
    }
    try registry.override("CUSTOM", request(path: "my.module.Backend"))
    XCTAssertEqual(try path("CUSTOM"), "my.module.Backend")
    XCTAssertTrue(try registry.member("CUSTOM").isOverridden)
    XCTAssertFalse(try registry.member("CUSTOM").isDynamic)
    try registry.override("CUSTOM", nil)
    XCTAssertEqual(mlaError { try self.path("CUSTOM") }?.message, expected)
  }

  func testOverrideHoldsUntilCleared() throws {
    let original = try path("FLASH_ATTN")
    try registry.override("FLASH_ATTN", request(path: "a.B"))
    try registry.override("FLASH_ATTN", request(path: "c.D"))
    XCTAssertEqual(try path("FLASH_ATTN"), "c.D")
    XCTAssertTrue(try registry.member("FLASH_ATTN").isOverridden)
    XCTAssertFalse(try registry.member("FLASHINFER").isOverridden)
    try registry.override("FLASH_ATTN", nil)
    XCTAssertEqual(try path("FLASH_ATTN"), original)
    XCTAssertFalse(try registry.member("FLASH_ATTN").isOverridden)
    XCTAssertNoThrow(try registry.override("FLASH_ATTN", nil))
  }

  func testUnknownNameListsTheOptions() throws {
    try registry.register("MINE", request(path: "a.B"))
    let expected =
      "Unknown MLA prefill backend: 'NONEXISTENT'. Valid options are: FLASH_ATTN, FLASHINFER, "
      + "TRTLLM_RAGGED, TOKENSPEED_MLA, ROCM_AITER_FA, CPU, ZEN_CPU, CUSTOM, MINE"
    let request = try request(path: "a.B")
    for error in [
      mlaError { try self.registry.member("NONEXISTENT") },
      mlaError { try self.registry.implementation(of: "NONEXISTENT") },
      mlaError { try self.registry.override("NONEXISTENT", request) },
      mlaError { try self.registry.override("NONEXISTENT", nil) },
      mlaError { try self.registry.remove("NONEXISTENT") },
    ] {
      XCTAssertEqual(error?.message, expected)
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_NOT_REGISTERED))
    }
  }

  func testDynamicMemberIsItsOwnBase() throws {
    try registry.register("MINE", request(path: "a.B"))
    XCTAssertEqual(registry.snapshot().last?.name, "MINE")
    XCTAssertTrue(try registry.member("MINE").isDynamic)
    XCTAssertFalse(try registry.member("MINE").isOverridden)
    XCTAssertEqual(try registry.member("MINE").backendName, "MINE")
    try registry.override("MINE", request(path: "c.D"))
    XCTAssertEqual(try path("MINE"), "c.D")
    try registry.override("MINE", nil)
    XCTAssertEqual(try path("MINE"), "a.B")
    try registry.remove("MINE")
    XCTAssertEqual(registry.snapshot().count, 8)
    try registry.register("MINE", request(path: "e.F"))
    XCTAssertEqual(try path("MINE"), "e.F")
  }

  func testDynamicMemberMayWaitForItsClass() throws {
    try registry.register("LATER", request(path: ""))
    XCTAssertTrue(
      mlaError { try self.path("LATER") }?.message.hasPrefix(
        "MLA prefill backend LATER must be registered before use.") == true)
    try registry.override("LATER", request(path: "a.B"))
    XCTAssertEqual(try path("LATER"), "a.B")
    let empty = try request(path: "")
    XCTAssertEqual(
      mlaError { try self.registry.override("LATER", empty) }?.message,
      "registration.class_path = \"\": must not be empty without a vtable")
  }

  func testOneMemberTooManyIsRefused() throws {
    for number in 0..<Registry.maximumDynamicMembers {
      try registry.register("MEMBER_\(number)", request(path: "a.B"))
    }
    let more = try request(path: "a.B")
    XCTAssertEqual(
      mlaError { try self.registry.register("MORE", more) }?.message,
      "name = MORE: no more than 1024 members can be added")
    try registry.remove("MEMBER_7")
    try registry.register("MORE", more)
  }

  func testDuplicateIsRefused() throws {
    try registry.register("MINE", request(path: "a.B"))
    for name in ["MINE", "FLASH_ATTN", "CUSTOM"] {
      let again = try request(path: "other.module.Class")
      let error = mlaError { try self.registry.register(name, again) }
      XCTAssertEqual(
        error?.message,
        "MLA prefill backend \(name) already exists in MLAPrefillBackendEnum. Use "
          + "register_mla_prefill_backend(MLAPrefillBackendEnum.\(name), 'other.module.Class') "
          + "to override.")
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_INVALID_ARGUMENT))
    }
    XCTAssertEqual(try path("MINE"), "a.B")
  }

  func testNamesThatPythonCouldNotHaveAreRefused() throws {
    let bad = [
      "", "1ST", "A-B", "A B", "A.B", "A\n", "\u{301}A", "mro", "name", "value", "register",
      "get_path", "get_class", "is_overridden", "clear_override", "__class__", "__members__",
      "_missing_", "_", "__",
    ]
    for name in bad {
      let some = try request(path: "a.B")
      let error = mlaError { try self.registry.register(name, some) }
      XCTAssertEqual(error?.message, "Invalid or reserved backend name: \(name)")
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_INVALID_ARGUMENT))
    }
    for name in ["A1", "_A", "A_", "flash_attn", "Größe", "后端", "class"] {
      XCTAssertNoThrow(try registry.register(name, request(path: "a.B")), name)
    }
  }

  func testOnlyDynamicMembersCanBeRemoved() throws {
    try registry.override("FLASH_ATTN", request(path: "a.B"))
    for name in ["FLASH_ATTN", "CPU", "CUSTOM"] {
      XCTAssertEqual(
        mlaError { try self.registry.remove(name) }?.message,
        "name = \(name): only members added by mla_register_backend can be removed")
    }
    XCTAssertEqual(registry.snapshot().count, 8)
  }

  func testClassPathAloneCannotBeCreated() throws {
    try registry.override("CPU", request(path: "a.B"))
    let error = mlaError { try self.registry.implementation(of: "CPU") }
    XCTAssertEqual(error?.status, mla_status(MLA_ERROR_NOT_REGISTERED))
    XCTAssertEqual(
      error?.message,
      "MLA prefill backend CPU is registered as class 'a.B' only: without a vtable it cannot be "
        + "created here")
  }

  func testHandedOutStringsAreOnePerText() throws {
    let first = try InternedStrings.pointer(to: "some.module.Class")
    XCTAssertEqual(first, try InternedStrings.pointer(to: "some.module.Class"))
    XCTAssertNotEqual(first, try InternedStrings.pointer(to: "some.module.Class2"))
    XCTAssertEqual(String(cString: first), "some.module.Class")
    // Equal to Swift, different to everybody else.
    XCTAssertNotEqual(
      try InternedStrings.pointer(to: "caf\u{e9}"),
      try InternedStrings.pointer(to: "cafe\u{301}"))
  }
}
