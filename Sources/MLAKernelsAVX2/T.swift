import MLAKernelABI
import MLAShims
@inline(never) public func tileTestAVX2(_ a: Int) -> Int { a &* 3}
