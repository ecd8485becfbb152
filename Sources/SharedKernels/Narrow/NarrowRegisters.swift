typealias Group<Row: QueryRow> = Rows4<Row>
@inline(__always) var rowsPerGroup: Int { 4 }
