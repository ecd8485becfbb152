// swift-tools-version:6.0
import PackageDescription

// 512-bit registers: clang's default for these CPUs is 256.
let fullWidth = ["-mprefer-vector-width=512"]

let package = Package(
  name: "MLAPrefill",
  products: [
    .library(name: "mlaprefill", type: .dynamic, targets: ["MLAPrefill"])
  ],
  targets: mlaTargets()
)

@MainActor func mlaTargets() -> [Target] {
  let root = Context.packageDirectory
  return [
    .systemLibrary(name: "CMLAPrefill", path: "include"),
    .target(name: "MLAKernelABI"),
    // Hidden: the dynamic library exports what its own header declares only.
    .target(name: "MLAShims", cSettings: [.unsafeFlags(["-fvisibility=hidden"])]),
    kernels("Portable", flags: []),
    kernels("AVX2", flags: ["-mavx2", "-mfma", "-mf16c"]),
    kernels("AVX512", flags: ["-march=skylake-avx512"] + fullWidth),
    kernels("AVX512BF16", flags: ["-march=cooperlake"] + fullWidth),
    // Without FP16 arithmetic, which nothing here needs: AMX code can then be
    // checked under a model of the tiles on any CPU with AVX-512.
    kernels("AMX", flags: ["-march=sapphirerapids", "-mno-avx512fp16"] + fullWidth),
    .target(
      name: "MLACore",
      dependencies: [
        "CMLAPrefill", "MLAKernelABI", "MLAShims", "MLAKernelsPortable",
        "MLAKernelsAVX2", "MLAKernelsAVX512", "MLAKernelsAVX512BF16", "MLAKernelsAMX",
      ]
    ),
    .target(
      name: "MLAPrefill",
      dependencies: ["CMLAPrefill", "MLACore"],
      exclude: ["exports.map"],
      linkerSettings: [
        .unsafeFlags([
          "-static-stdlib",
          // gold leaves protected symbols of other modules in the dynamic table.
          "-use-ld=lld",
          "-Xlinker", "--version-script=\(root)/Sources/MLAPrefill/exports.map",
          "-Xlinker", "--gc-sections",
          "-Xlinker", "-soname=libmlaprefill.so.1",
          "-Xlinker", "-z", "-Xlinker", "nodelete",
        ])
      ]
    ),
  ] + testTargets()
}

@MainActor func testTargets() -> [Target] {
  [
    .target(name: "MLATestSupport", dependencies: ["MLAKernelABI"], path: "Tests/Support"),
    .target(name: "SoftwareAMX", path: "Tests/SoftwareAMX"),
    .testTarget(
      name: "AMXKernelTests",
      dependencies: ["MLAKernelABI", "MLAKernelsAMX", "MLATestSupport", "SoftwareAMX"]),
    .testTarget(
      name: "MLACoreTests", dependencies: ["MLACore", "CMLAPrefill", "MLAKernelABI", "MLATestSupport"]),
    .testTarget(
      name: "KernelTests", dependencies: ["MLACore", "MLAKernelABI", "MLATestSupport"]),
    .target(name: "BenchInstructions", path: "Tests/BenchInstructions"),
    .target(
      name: "MLABenchSupport",
      dependencies: [
        "CMLAPrefill", "BenchInstructions", "MLACore", "MLAKernelABI", "MLATestSupport",
      ],
      path: "Tests/BenchSupport"),
    .executableTarget(
      name: "mla-bench", dependencies: ["MLABenchSupport", "MLATestSupport"], path: "Tests/Bench"),
    .executableTarget(
      name: "mla-demo", dependencies: ["MLABenchSupport", "MLATestSupport"], path: "Tests/Demo"),
  ]
}

/// One module per instruction set: what is compiled for a stronger CPU must
/// never be shared with a weaker one (see Sources/README.md).
@MainActor func kernels(_ family: String, flags: [String]) -> Target {
  .target(
    name: "MLAKernels\(family)",
    dependencies: ["MLAKernelABI", "MLAShims"],
    swiftSettings: [.unsafeFlags(["-Ounchecked"] + flags.flatMap { ["-Xcc", $0] })]
  )
}
