/// All that a plan of a stateless call depends on.
struct AttentionKey: Equatable, Sendable {
  let requests: FixedArray<RequestSpan>
  let shape: AttentionShape
  let mostThreads: Int
  /// Of the requests; those that are equal have the same.
  let hash: UInt

  init(_ requests: FixedArray<RequestSpan>, _ shape: AttentionShape, mostThreads: Int) {
    (self.requests, self.shape, self.mostThreads) = (requests, shape, mostThreads)
    hash = requests.reduce(0) { hash, span in
      var hash = Self.mixed(hash, span.queryBegin)
      hash = Self.mixed(hash, span.queryCount)
      hash = Self.mixed(hash, span.keyBegin)
      return Self.mixed(hash, span.keyCount)
    }
  }

  private static func mixed(_ hash: UInt, _ number: Int) -> UInt {
    let product = (hash ^ UInt(bitPattern: number)) &* 0x9e37_79b9_7f4a_7c15
    return product ^ product >> 32
  }

  /// Whether there is hardly a doubt; takes no longer for more requests.
  func resembles(_ other: Self) -> Bool {
    hash == other.hash && requests.count == other.requests.count && shape == other.shape
      && mostThreads == other.mostThreads
  }

  static func == (a: Self, b: Self) -> Bool {
    a.resembles(b) && a.requests.elementsEqual(b.requests)
  }
}
