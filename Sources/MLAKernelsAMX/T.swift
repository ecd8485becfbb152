import MLAKernelABI
import MLAShims
@inline(never) public func tileTestAMX(_ a: Int) -> Int { a &* 3}
