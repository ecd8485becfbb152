import CMLAPrefill
import MLACore

@_cdecl("mla_abi_version") @implementation
public func mla_abi_version() -> UInt32 { UInt32(MLA_ABI_VERSION) }
