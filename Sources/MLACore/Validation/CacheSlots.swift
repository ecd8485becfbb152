import MLACUDAKernels
import MLAShims

/// Where a cache's tokens lie, whatever tensors and format hold them.
struct CacheSlots: Sendable {
  /// Rows of one kind, one in each slot.
  struct Rows: Sendable {
    let type: ElementType
    /// In elements.
    let width: Int
    /// Of the first block's first slot; meaningless where there is none.
    fileprivate let address: UInt
    /// In bytes.
    fileprivate let blockStride: Int
    /// In bytes, from a row to the next one's of a run.
    let stride: Int
    /// Multiplies what is read.
    let multiplier: Float
    /// From a row to its groups' scales, in bytes; nil: there are none.
    let scalesOffset: Int?

    /// Of rows that are not empty.
    func pointer(block: Int, offset: Int) -> UnsafeMutableRawPointer {
      // Slots that exist are not at NULL.
      UnsafeMutableRawPointer(
        bitPattern: address &+ UInt(block * blockStride + offset * stride)
      ).unsafelyUnwrapped
    }

    /// As a GPU's kernel reads them.
    var cuda: mla_cuda_cache_rows {
      mla_cuda_cache_rows(
        data: UnsafeMutableRawPointer(bitPattern: address), block_stride: Int64(blockStride),
        slot_stride: Int64(stride), width: Int32(width), dtype: type.rawValue)
    }

    fileprivate var bytes: Int { width * type.bytes }

    func fetch(block: Int, offset: Int) {
      if width == 0 { return }
      let row = pointer(block: block, offset: offset)
      for byte in Swift.stride(from: 0, to: bytes, by: 64) { mla_prefetch(row + byte) }
    }
  }

  let blockCount: Int
  let blockSize: Int
  let latents: Rows
  let rope: Rows
  /// Whether a block's last row is followed by the next block's first, as by one of its own.
  let blocksFollow: Bool
  /// From a latent on, with what follows it at once of its token.
  let fetchedBytes: Int

  /// - Parameters:
  ///   - tensors: checked against the format.
  ///   - rank: of latents.
  init(_ tensors: CacheTensors, _ format: CacheFormat, rank: Int) {
    let cache = tensors.cache.view.inBlocks
    (blockCount, blockSize) = (cache.shape[0], cache.shape[1])
    let cachedLatents = cache.narrowed(2, to: 0..<rank)
    switch format {
    case .plain(_, let scale):
      latents = Rows(cachedLatents, scale: scale)
      rope = Rows(
        tensors.rope?.view.inBlocks ?? cache.narrowed(2, to: rank..<cache.shape[2]), scale: scale)
    case .fp8DsMLA:
      latents = Rows(cachedLatents, scale: 1, scalesOffset: DsMLASlot.scalesOffset)
      rope = Rows(
        type: .bfloat16, width: DsMLASlot.rope, address: latents.address &+ UInt(DsMLASlot.ropeOffset),
        blockStride: latents.blockStride, stride: latents.stride, multiplier: 1,
        scalesOffset: nil)
    }
    // Blocks of fp8_ds_mla may lie at distances that are none of rotary elements.
    let blockSize = blockSize
    blocksFollow = [latents, rope].allSatisfy { rows in
      rows.blockStride == blockSize * rows.stride && rows.stride.isMultiple(of: rows.type.bytes)
    }
    // Of another tensor it may lie anywhere.
    let ropeEnd = Int(bitPattern: rope.address &- latents.address) &+ rope.bytes
    fetchedBytes = rope.width > 0 && tensors.rope == nil ? ropeEnd : latents.bytes
  }

  /// Whether a token lies there as one row of a type, the rotary part behind the latent, each
  /// of them at the alignment of fp32.
  func areRows(of type: ElementType) -> Bool {
    let word = MemoryLayout<Float>.size
    guard latents.type == type, latents.scalesOffset == nil,
      latents.address.isMultiple(of: UInt(word)), latents.blockStride.isMultiple(of: word),
      latents.stride.isMultiple(of: word)
    else { return false }
    return rope.width == 0
      || rope.type == type && rope.address == latents.address &+ UInt(latents.bytes)
        && rope.blockStride == latents.blockStride && rope.stride == latents.stride
  }
}

extension CacheSlots {
  /// Of an index cache: keys as latents, and their scales, where they have any, as fp32 that
  /// a rotary part is: behind all keys of a block.
  ///
  /// - Parameter cache: checked against the format.
  init(_ cache: CallTensor, _ format: IndexFormat) {
    let view = cache.view.inBlocks
    (blockCount, blockSize) = (view.shape[0], view.shape[1])
    switch format {
    case .plain:
      latents = Rows(view, scale: 1)
      rope = Rows(view.narrowed(2, to: view.shape[2]..<view.shape[2]), scale: 1)
    case .fp8Block:
      let width = view.shape[2] - IndexFormat.scaleBytes
      latents = Rows(
        type: view.type, width: width, address: view.address, blockStride: view.strides[0],
        stride: width, multiplier: 1, scalesOffset: nil)
      rope = Rows(
        type: .float32, width: 1, address: view.address &+ UInt(blockSize * width),
        blockStride: view.strides[0], stride: IndexFormat.scaleBytes, multiplier: 1,
        scalesOffset: nil)
    }
    let blockSize = blockSize
    blocksFollow = [latents, rope].allSatisfy { $0.blockStride == blockSize * $0.stride }
    fetchedBytes = latents.bytes
  }
}

extension CacheSlots.Rows {
  /// - Parameter view: [num_blocks, block_size, width].
  fileprivate init(_ view: TensorView, scale: Float, scalesOffset: Int? = nil) {
    (type, width) = (view.type, view.shape[2])
    address = view.address
    blockStride = view.strides[0] * view.type.bytes
    stride = view.shape[1] == 1 ? blockStride : view.strides[1] * view.type.bytes
    multiplier = view.type == .float8E4M3 ? scale : 1
    self.scalesOffset = scalesOffset
  }
}

extension TensorView {
  /// A cache's, [num_blocks, block_size, width]: rows of a tensor of two dimensions are
  /// blocks of one.
  fileprivate var inBlocks: TensorView {
    guard shape.count == 2 else { return self }
    return TensorView(
      type: type, shape: [shape[0], 1, shape[1]], strides: [strides[0], 0, strides[1]],
      address: address)
  }
}
