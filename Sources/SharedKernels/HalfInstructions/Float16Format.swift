import MLAShims

enum Float16Format: ElementFormat {
  @inline(__always) static var bytes: Int { 2 }
  @inline(__always) static func load(_ p: UnsafeRawPointer) -> FloatVector { mla_load_f16(p) }
  @inline(__always) static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer) {
    mla_store_f16(p, v)
  }
}
