/// One of the library's own, wherever it runs: what all of them write.
protocol OwnBackend: MLAPrefillBackend {}

extension OwnBackend {
  func supportsOut() -> Bool { true }
  func supportsQuantOutput(_ type: ElementType) -> Bool { type == .float8E4M3 }
}
