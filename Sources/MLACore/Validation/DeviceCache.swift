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
      let position = try PagedCache.position(
        of: i, batch, table, slots, starts: starts, startsField: startsField)
      places.append(
        Place(row: batch.cachedTokens(i) > 0 ? try table.row(of: i) : 0, position: position))
    }
    self.places = places
  }

  func place(_ request: Int) -> Place { places[request] }
}
