/// The slots of a cache on a device that a batch's contexts lie in: which blocks they are only
/// the device can read.
struct DeviceCache: @unchecked Sendable {
  let slots: CacheSlots
  let table: BlockTable
  private let places: FixedArray<Place>

  /// Where a request's tokens are.
  struct Place {
    /// Of the table.
    let row: Int
    /// The first token's, from the request's first block on.
    let position: Int
  }

  /// As `PagedCache`.
  init(
    _ slots: CacheSlots, _ table: BlockTable, _ batch: some CachedTokens,
    starts: UnsafePointer<Int32>?, startsField: StaticString
  ) throws(MLAError) {
    (self.slots, self.table) = (slots, table)
    var places = try FixedArray<Place>(
      capacity: batch.requests.count, for: "contexts of a batch")
    for i in batch.requests {
      guard batch.cachedTokens(i) > 0 else {
        places.append(Place(row: 0, position: 0))
        continue
      }
      let position = Int(starts?[i] ?? 0)
      try PagedCache.check(position, of: i, batch, table, slots, startsField: startsField)
      places.append(Place(row: try table.row(of: i), position: position))
    }
    self.places = places
  }

  func place(_ request: Int) -> Place { places[request] }
}
