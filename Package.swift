// swift-tools-version:6.0
import Foundation
import PackageDescription

/// What is compiled for one kind of CPU.
struct Family {
  let name: String
  var flags: [String] = []
}

// What is built for. A manifest is compiled for the machine that builds: MLA_ARCH says where
// it builds for another.
#if arch(x86_64)
  let ownArchitecture = "x86_64"
#elseif arch(arm64)
  let ownArchitecture = "aarch64"
#else
  let ownArchitecture = ""
#endif
let architecture = Context.environment["MLA_ARCH"] ?? ownArchitecture

/// With this variable set, a build for tests of every table on any CPU with AVX2: what
/// AVX2 lacks is spelled in C.
let isModelled =
  architecture == "x86_64" && Context.environment["MLA_MODELLED_INSTRUCTIONS"] != nil

let avx2 = ["-mavx2", "-mfma", "-mf16c"]
// 512-bit registers: clang's default for these CPUs is 256.
let fullWidth = ["-mprefer-vector-width=512"]

/// What this architecture has beside portable code, weakest first.
let families: [Family] =
  switch architecture {
  case _ where isModelled:
    [
      Family(name: "AVX2", flags: avx2),
      modelled("AVX512", ["AVX512F", "AVX512BW", "AVX512DQ"]),
      modelled("AVX512BF16", ["AVX512F", "AVX512BW", "AVX512DQ", "AVX512BF16"]),
      modelled("AMX", ["AVX512F", "AVX512BW", "AVX512DQ", "AVX512BF16", "AMX_TILE", "AMX_BF16"]),
    ]
  case "x86_64":
    [
      Family(name: "AVX2", flags: avx2),
      Family(name: "AVX512", flags: ["-march=skylake-avx512"] + fullWidth),
      Family(name: "AVX512BF16", flags: ["-march=cooperlake"] + fullWidth),
      // Without FP16 arithmetic, which nothing here needs: AMX code can then be
      // checked under a model of the tiles on any CPU with AVX-512.
      Family(name: "AMX", flags: ["-march=sapphirerapids", "-mno-avx512fp16"] + fullWidth),
    ]
  case "aarch64":
    // ARMv8-A itself, and no more than the one extension.
    [
      Family(name: "NEON", flags: ["-DMLA_NEON"]),
      Family(name: "NEONBF16", flags: ["-DMLA_NEON", "-march=armv8-a+bf16"]),
    ]
  default:
    []
  }
let kernelFamilies = [Family(name: "Portable")] + families

/// Source distributions lack them.
let hasTests = FileManager.default.fileExists(atPath: Context.packageDirectory + "/Tests/Support")

/// With this variable set, a build for tests that see what is internal to the core. All else
/// is compiled as in the product.
let isTestable = Context.environment["MLA_TESTABLE"] != nil

// Swift's own hoisting out of loops is most of the time that kernels take to compile,
// and changes nothing: LLVM hoists the same later.
let kernelFlags = ["-Ounchecked", "-Xllvm", "-sil-disable-pass=loop-invariant-code-motion"]

// What the Swift runtime gets in place of its own or the system's (MLAShims/swift_runtime.c).
let replaced = [
  // The names of Unicode's characters: half a megabyte that nothing here asks for.
  "_swift_stdlib_getScalarName",
  "environ",
  // All that it locks with: metadata, caches, lazy globals, static variables.
  "pthread_mutex_lock", "pthread_mutex_unlock", "__cxa_guard_acquire", "__cxa_guard_release",
  "_ZN5swift14threading_impl9once_slowERNS0_6once_tEPFvPvES3_",
]

// What older releases of the C library have in other files, or as other versions
// (MLAShims/older_libraries.c). The files are still there in newer ones, without content.
let moved =
  ["x86_64", "aarch64"].contains(architecture)
  ? [
    "exp", "exp2", "log", "log2", "dlopen", "dlsym", "dlerror", "dladdr", "pthread_create",
    "pthread_attr_setstacksize", "pthread_key_create", "pthread_setspecific", "pthread_sigmask",
  ] : []
let filesBefore = moved.isEmpty ? [] : ["-l:libpthread.so.0", "-l:libdl.so.2"]

// What the library and the Swift runtime in it allocate memory with, and what in it would
// end the process where memory is short; see Sources/MLAAllocation.
let wrappedAllocation = [
  "malloc", "calloc", "realloc", "posix_memalign", "malloc_usable_size", "free", "_Znwm",
  "_ZnwmSt11align_val_t", "_ZdlPv", "_ZdlPvm", "_ZdlPvSt11align_val_t", "_ZdlPvmSt11align_val_t",
  "swift_beginAccess", "swift_endAccess",
]

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
    // Machine code, and the source that it came from, which SwiftPM does not compile.
    .target(
      name: "MLACUDAKernels", exclude: ["Kernels", "cubins"],
      // Which has #embed.
      cSettings: [.unsafeFlags(["-std=c23", "-fvisibility=hidden"])]),
    shims(),
    .target(
      name: "MLAAllocation", dependencies: ["MLAShims"],
      cSettings: [.unsafeFlags(["-fvisibility=hidden"])]),
    .target(
      name: "MLACore",
      dependencies: ["CMLAPrefill", "MLACUDAKernels", "MLAKernelABI", "MLAShims"]
        + kernelFamilies.map { .init(stringLiteral: "MLAKernels\($0.name)") },
      swiftSettings: isTestable ? [.unsafeFlags(["-enable-testing"])] : []
    ),
    .target(
      name: "MLAPrefill",
      dependencies: ["CMLAPrefill", "MLAAllocation", "MLACore"],
      exclude: ["MLA_1.map"],
      linkerSettings: [
        .unsafeFlags([
          "-static-stdlib",
          // gold leaves protected symbols of other modules in the dynamic table.
          "-use-ld=lld",
          "-Xlinker", "--version-script=\(root)/Sources/MLAPrefill/MLA_1.map",
          "-Xlinker", "--gc-sections",
          "-Xlinker", "-soname=libmlaprefill.so.1",
          "-Xlinker", "-z", "-Xlinker", "nodelete",
        ] + ((replaced + moved + wrappedAllocation).map { "--wrap=\($0)" } + filesBefore)
          .flatMap { ["-Xlinker", $0] })
      ]
    ),
  ] + kernelFamilies.map(kernels) + (hasTests ? testTargets() + x86TestTargets() : [])
}

/// Hidden: the dynamic library exports what its own header declares only.
@MainActor func shims() -> Target {
  .target(
    name: "MLAShims", dependencies: isModelled ? ["ModelledInstructions"] : [],
    // What the CPU has is said by the model.
    exclude: isModelled ? ["cpu.c"] : [], cSettings: [.unsafeFlags(["-fvisibility=hidden"])])
}

@MainActor func testTargets() -> [Target] {
  [
    .target(name: "MLATestSupport", dependencies: ["MLAKernelABI"], path: "Tests/Support"),
    .testTarget(
      name: "MLACoreTests",
      dependencies: [
        "MLACore", "CMLAPrefill", "MLACUDAKernels", "MLAKernelABI", "MLATestSupport",
      ]),
    .testTarget(
      name: "KernelTests", dependencies: ["MLACore", "MLAKernelABI", "MLATestSupport"]),
  ]
}

@MainActor func modelTargets() -> [Target] {
  [
    .target(
      name: "ModelledInstructions", path: "Tests/ModelledInstructions",
      exclude: ["Comparison", "compiler"],
      cSettings: [
        .headerSearchPath("../../Sources/MLAShims/include"),
        .unsafeFlags(["-fvisibility=hidden", "-Wno-psabi"]),
      ]),
    .testTarget(
      name: "AMXKernelTests",
      dependencies: ["MLAKernelABI", "MLAKernelsAMX", "MLAKernelsAVX512", "MLATestSupport"],
      // Of tiles that are carried out by signals.
      exclude: ["CoreModelTests.swift", "SoftwareAMXTests.swift", "TileInstructionTests.swift"]),
  ]
}

/// Compiled for AVX2 as if there was more: macros tell of it, and the model takes the place
/// of the compiler's header.
@MainActor func modelled(_ name: String, _ instructions: [String]) -> Family {
  let root = Context.packageDirectory + "/Tests/ModelledInstructions"
  return Family(
    name: name,
    flags: avx2 + ["-Wno-psabi", "-I\(root)/compiler", "-I\(root)/include"]
      + instructions.map { "-D__\($0)__" })
}

/// Instructions by name: the model of the tiles, the rates that speed is measured
/// against.
@MainActor func x86TestTargets() -> [Target] {
  guard architecture == "x86_64" else { return [] }
  if isModelled { return modelTargets() }
  return [
    .target(name: "SoftwareAMX", path: "Tests/SoftwareAMX"),
    .testTarget(
      name: "AMXKernelTests",
      dependencies: [
        "MLAKernelABI", "MLAKernelsAMX", "MLAKernelsAVX512", "MLAKernelsAVX512BF16",
        "MLATestSupport", "SoftwareAMX",
      ]),
    .target(name: "BenchInstructions", path: "Tests/BenchInstructions"),
    .target(
      name: "MLABenchSupport",
      dependencies: [
        "CMLAPrefill", "BenchInstructions", "MLACore", "MLAKernelABI", "MLATestSupport",
      ],
      path: "Tests/BenchSupport"),
    .executableTarget(
      name: "mla-bench", dependencies: ["MLABenchSupport", "MLATestSupport"], path: "Tests/Bench",
      exclude: [
        "chart.py", "distributed.py", "forms_chart.py", "layer.py", "peers.py", "results",
        "run.sh", "selected.py", "sides.py",
      ]),
    .executableTarget(
      name: "mla-demo", dependencies: ["MLABenchSupport", "MLATestSupport"], path: "Tests/Demo"),
  ]
}

/// One module per instruction set: what is compiled for a stronger CPU must
/// never be shared with a weaker one (see Sources/README.md).
@MainActor func kernels(_ family: Family) -> Target {
  .target(
    name: "MLAKernels\(family.name)",
    dependencies: ["MLAKernelABI", "MLAShims"],
    swiftSettings: [.unsafeFlags(kernelFlags + family.flags.flatMap { ["-Xcc", $0] })]
  )
}
