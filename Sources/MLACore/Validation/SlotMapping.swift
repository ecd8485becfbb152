/// The caller's places of tokens in a cache: a slot each, or -1 for none.
enum SlotMapping {
  /// - Parameters:
  ///   - rows: of the tensor `name` that the tokens are in.
  static func check(
    _ pointer: UnsafePointer<Int64>?, count: Int64, rows: Int, of name: String
  ) throws(MLAError) {
    guard count >= 0, count <= Int64(rows) else {
      throw .invalid("num_slots", count, "must be 0 to the \(rows) rows of \(name)")
    }
    guard count == 0 || pointer != nil else { throw .null("slot_mapping") }
  }

  /// - Parameters:
  ///   - count: checked.
  ///   - name: the cache's, for messages.
  static func read(
    _ pointer: UnsafePointer<Int64>?, count: Int64, of cache: CacheSlots, name: String
  ) throws(MLAError) -> FixedArray<Int64> {
    guard count > 0, let pointer else { return FixedArray() }
    // Copied, then checked: what the caller does to its own meanwhile changes nothing.
    let slots = try FixedArray(
      copying: UnsafeBufferPointer(start: pointer, count: Int(count)), for: "slot_mapping")
    // Both are at most Int32.max.
    let places = Int64(cache.blockCount * cache.blockSize)
    if let i = slots.firstIndex(where: { $0 < -1 || $0 >= places }) {
      throw .invalid(
        "slot_mapping[\(i)]", slots[i], "must be -1 or one of the \(places) slots of \(name)")
    }
    return slots
  }
}
