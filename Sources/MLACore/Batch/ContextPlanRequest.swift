/// What is to be packed into chunks.
public struct ContextPlanRequest: Sendable {
  /// Cached tokens of each request.
  public var contextLens: FixedArray<Int32>
  /// Row offsets of the new tokens, if they are known.
  public var queryStartLoc: RowOffsets?
  /// Most context rows in a chunk, at least `blockSize`.
  public var rowBudget: Int64
  /// Splits are at multiples of this.
  public var blockSize: Int32
  /// Most rows of a piece that is split off, at least `blockSize`; 0: `rowBudget`.
  public var maximumPiece: Int32 = 0
}
