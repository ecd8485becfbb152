import SoftwareAMX
import XCTest

/// Makes AMX code runnable in this process, by the CPU or by the model, or
/// skips the test.
func requireAMX() throws {
  try XCTSkipIf(
    software_amx_install() == SOFTWARE_AMX_UNAVAILABLE,
    "this CPU has neither AMX nor the AVX-512 that code for AMX needs besides")
}
