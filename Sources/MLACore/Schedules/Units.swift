extension TileSchedule {
  /// Segments for one thread each. What those of a request have in common is kept once:
  /// thousands of short ones then lie in few cache lines, beside tensors that pass
  /// through.
  public struct Units: RandomAccessCollection, Sendable {
    private struct Place {
      let request: Int32
      let firstHead: Int32
      let headCount: Int32
    }

    private var requests: [Segment] = []
    private var places: [Place] = []

    public var startIndex: Int { 0 }
    public var endIndex: Int { places.count }

    public subscript(unit: Int) -> Segment {
      let place = places[unit]
      let first = Int(place.firstHead)
      return requests[Int(place.request)]
        .narrowed(to: first..<first + Int(place.headCount), splitsPerTurn: 1)
    }

    mutating func append(_ request: Segment, headsPerUnit: Int) {
      for first in stride(from: request.heads.lowerBound, to: request.heads.upperBound, by: headsPerUnit)
      {
        let heads = Swift.min(headsPerUnit, request.heads.upperBound - first)
        places.append(
          Place(request: Int32(requests.count), firstHead: Int32(first), headCount: Int32(heads)))
      }
      requests.append(request)
    }

    mutating func removeLast(_ count: Int) { places.removeLast(count) }
  }
}
