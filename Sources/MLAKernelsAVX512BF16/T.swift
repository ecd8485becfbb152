import MLAKernelABI
import MLAShims
@inline(never) public func tileTestAVX512BF16(_ a: Int) -> Int { a &* 3}
