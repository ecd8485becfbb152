import CMLAPrefill
import MLACUDAKernels

/// What a layer puts on the caller's stream beside a registered backend's runs.
struct CUDALayerWork: RegisteredWork {
  let launches: CUDALayerLaunches
  let memory: RegisteredMemory
  let start: UnsafeMutableRawPointer

  private var place: CUDALayerPlace { launches.place }
  private var launcher: CUDADevice.Launcher { launches.launcher }

  func writeRows(_ spans: some Collection<RowSpan>, rows: Int) throws(MLAError) {
    let tokens = CUDALayerLaunches.Tokens(
      at: memory.scratch.of(0, start), rows: rows, place.config)
    let projected = memory.projected(start, rows)
    try launches.gather(spans, into: tokens)
    try launches.project(tokens, 0..<projected.shape[1], to: projected)
    try launches.concat(projected, tokens, to: memory.keys(start, rows))
  }

  func writeKeyless(_ state: State) throws(MLAError) {
    func fill(_ view: TensorView, _ word: UInt32) throws(MLAError) {
      let count = view.shape.indices.reduce(1) { $0 * view.shape[$1] }
      try launcher.fill(view.address, count: count, with: word)
    }
    try fill(state.out, 0)
    try fill(state.lse, (-Float.infinity).bitPattern)
  }

  func convert(_ source: TensorView, to target: TensorView, times multiplier: Float)
    throws(MLAError)
  {
    var parameter = mla_cuda_convert(
      from: mla_cuda_rows(source), to: mla_cuda_rows(target), width: Int32(source.shape[2]),
      to_type: target.type.rawValue, multiplier: multiplier, reserved: 0)
    try launcher.launch(
      source.type == .float32 ? place.kernels.convertFloat32 : place.kernels.convert,
      grid: (source.shape[0], source.shape[1]), &parameter)
  }

  func copy(_ lse: TensorView, to target: TensorView) throws(MLAError) {
    func rows(_ view: TensorView) -> TensorView {
      TensorView(
        type: .float32, shape: [view.shape[0], 1, view.shape[1]], strides: [view.strides[0], 0, 1],
        address: view.address)
    }
    try convert(rows(lse), to: rows(target), times: 1)
  }

  func merge(_ part: State, into merged: State) throws(MLAError) {
    try CUDAMerge.launch(MergeArguments(part, into: merged), place.kernels.merge, launcher)
  }
}
