import MLAKernelABI
import MLAShims
@inline(never) public func tileTestPortable(_ a: Int) -> Int { a &* 3}
