/// cuDNN's names for what it is told of, by their numbers.
extension CuDNN {
  /// CUDNN_BACKEND_*_DESCRIPTOR
  enum DescriptorType: Int32 {
    case engineConfig = 3
    case engineHeuristics = 4
    case executionPlan = 5
    case operationGraph = 15
    case variantPack = 16
    case tensor = 17
    /// MATMUL, and its operation.
    case product = 18
    case productOperation = 19
    case deviceProperties = 38
    case attention = 41
    case diagonalBandMask = 44
    case softmax = 45
  }

  /// CUDNN_TYPE_*
  enum AttributeType: Int32 {
    case handle = 0
    case dataType = 1
    case boolean = 2
    case int64 = 3
    case pointer = 6
    case heuristicsMode = 8
    case pointwiseMode = 14
    case descriptor = 15
    case characters = 24
  }

  /// CUDNN_DATA_*
  enum DataType: Int32 {
    case float32 = 0
    case float16 = 2
    case int32 = 4
    case bfloat16 = 9
  }

  /// CUDNN_HEUR_MODE_A
  static let heuristicsModeA: Int32 = 3
  /// CUDNN_POINTWISE_CMP_GE
  static let greaterOrEqual: Int32 = 303

  /// What addresses of the device are multiples of, in bytes.
  static let alignment = 16

  /// CUDNN_ATTR_*, each of one type.
  struct Attribute {
    let name: Int32
    let type: AttributeType

    private init(_ name: Int32, _ type: AttributeType) { (self.name, self.type) = (name, type) }

    enum Heuristics {
      static let mode = Attribute(200, .heuristicsMode)
      static let graph = Attribute(201, .descriptor)
      static let results = Attribute(202, .descriptor)
      static let device = Attribute(204, .descriptor)
    }

    enum Plan {
      static let engineConfig = Attribute(401, .descriptor)
      static let workspaceSize = Attribute(402, .int64)
      static let json = Attribute(405, .characters)
      static let device = Attribute(407, .descriptor)
    }

    enum Graph {
      static let operations = Attribute(801, .descriptor)
      static let takesOverrides = Attribute(805, .boolean)
    }

    enum Tensor {
      static let alignment = Attribute(900, .int64)
      static let dataType = Attribute(901, .dataType)
      static let dimensions = Attribute(902, .int64)
      static let strides = Attribute(903, .int64)
      static let id = Attribute(906, .int64)
      static let isVirtual = Attribute(907, .boolean)
      static let isByValue = Attribute(908, .boolean)
      static let raggedOffsets = Attribute(913, .descriptor)
      static let raggedMultiplier = Attribute(914, .int64)
    }

    enum Pack {
      static let ids = Attribute(1000, .int64)
      static let pointers = Attribute(1001, .pointer)
      static let workspace = Attribute(1003, .pointer)
      static let overriddenIDs = Attribute(1010, .int64)
      static let shapes = Attribute(1011, .pointer)
      static let strides = Attribute(1012, .pointer)
    }

    /// CUDNN_ATTR_MATMUL_* and CUDNN_ATTR_OPERATION_MATMUL_*
    enum Product {
      static let sumType = Attribute(1500, .dataType)
      static let a = Attribute(1520, .descriptor)
      static let b = Attribute(1521, .descriptor)
      static let c = Attribute(1522, .descriptor)
      static let product = Attribute(1523, .descriptor)
    }

    enum Device {
      static let handle = Attribute(2701, .handle)
      static let json = Attribute(2702, .characters)
    }

    /// CUDNN_ATTR_OPERATION_SDPA_FWD_*
    enum Attention {
      static let q = Attribute(2800, .descriptor)
      static let k = Attribute(2801, .descriptor)
      static let v = Attribute(2802, .descriptor)
      static let out = Attribute(2803, .descriptor)
      static let scale = Attribute(2805, .descriptor)
      static let subgraph = Attribute(2811, .descriptor)
      static let subgraphInput = Attribute(2812, .int64)
      static let subgraphOutput = Attribute(2813, .int64)
      static let softmax = Attribute(2814, .descriptor)
      static let queryOffsets = Attribute(2820, .descriptor)
      static let keyOffsets = Attribute(2821, .descriptor)
    }

    enum Mask {
      static let scores = Attribute(3000, .descriptor)
      /// BDESC: what a score becomes that is masked.
      static let value = Attribute(3005, .descriptor)
      static let masked = Attribute(3006, .descriptor)
      static let comparison = Attribute(3007, .pointwiseMode)
      static let keyOffsets = Attribute(3008, .descriptor)
      static let queryOffsets = Attribute(3009, .descriptor)
    }

    enum Softmax {
      static let scores = Attribute(3100, .descriptor)
      static let weights = Attribute(3101, .descriptor)
      static let lse = Attribute(3102, .descriptor)
    }
  }
}
