import XCTest

#if canImport(SoftwareAMX)
  import SoftwareAMX

  /// Makes AMX code runnable in this process, by the CPU or by the model of the tiles, or
  /// skips the test.
  func requireAMX() throws {
    try XCTSkipIf(
      software_amx_install() == SOFTWARE_AMX_UNAVAILABLE,
      "this CPU has neither AMX nor the AVX-512 that code for AMX needs besides")
  }

  /// Skips a test of what the kernels compute where tiles are carried out by signals: it
  /// runs in the build with modelled instructions, whose bits are compared with this one's.
  func requireTiles() throws {
    try requireAMX()
    try XCTSkipIf(software_amx_install() == SOFTWARE_AMX_ACTIVE, "see AMXBitsTests")
  }
#else
  /// The build with modelled instructions.
  func requireAMX() throws {}
  func requireTiles() throws {}
#endif
