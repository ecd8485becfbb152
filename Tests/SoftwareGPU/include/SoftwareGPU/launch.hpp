// Kernels by name, and launching them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace SoftwareGPU {

/// When an asynchronous copy arrives: as soon as it is issued, not before it is waited
/// for, or at any time between.
enum class Arrival { early, late, random };

struct Options {
  /// Of all that the manual leaves open.
  std::uint64_t seed = 1;
  Arrival arrival = Arrival::random;
  /// Which machine it is: as on a real one, the same operands have the same results, in every
  /// launch. 0: each block is another one, and approximations differ from one to the next.
  std::uint64_t machine = 0;
};

struct Grid {
  int x = 1, y = 1, z = 1;
};

enum class Fault {
  none,
  /// The launch is not one of this kernel; nothing ran.
  refused,
  illegal_address,
  misaligned_address,
  /// A rule of the machine is broken: threads have diverged, a race, a deadlock.
  illegal_instruction,
};

/// The first fault ends a launch; blocks before it have run.
struct Result {
  Fault fault = Fault::none;
  /// Which rule, which kernel, block and thread, and where in its source.
  std::string text;

  bool ok() const { return fault == Fault::none; }
};

/// Of one struct, handed over by value.
struct Kernel {
  std::string name;
  int threads = 0;
  std::size_t parameter_bytes = 0;
  /// The body, of one thread.
  void (*body)(const unsigned char* parameters) = nullptr;
};

/// Null if no kernel of this name has been compiled into the program.
const Kernel* find(const char* name);

/// Runs all blocks, in the order of the seed. One launch at a time; others wait.
Result launch(const Kernel& kernel, Grid grid, int threads, std::size_t shared_bytes, const void* parameters,
              std::size_t parameter_bytes, Options options = {});

/// The kernel of this name, made if there is none.
Kernel& registered(const char* name);

/// What KERNEL leaves behind, before its parameters are known.
struct Registration {
  Registration(const char* name, int threads, void (*body)(const unsigned char*)) {
    registered(name).threads = threads;
    registered(name).body = body;
  }
};

/// Becomes whatever a kernel declares as its parameter, and notes its size.
template <class Name>
struct ParametersOf {
  const unsigned char* bytes;

  template <class Struct>
  operator const Struct&() const {
    static_cast<void>(&is_noted<Struct>);
    return *reinterpret_cast<const Struct*>(bytes);
  }

 private:
  template <class Struct>
  static inline const bool is_noted = (registered(Name::text).parameter_bytes = sizeof(Struct)) > 0;
};

}  // namespace SoftwareGPU

#define PARAMETERS(type) const type&

/// KERNEL(name, threads of a block, blocks on a multiprocessor)(PARAMETERS(type) name) {...}
/// What it calls is looked up when it is instantiated, where the kernel has been declared.
#define KERNEL(name, threads, blocks)                                                                                 \
  struct name##_launch {                                                                                              \
    static constexpr const char* text = #name;                                                                        \
    template <class Launch>                                                                                           \
    static void body(const unsigned char* parameters) {                                                               \
      name(Launch{{parameters}});                                                                                     \
    }                                                                                                                 \
  };                                                                                                                  \
  struct name##_parameters : SoftwareGPU::ParametersOf<name##_launch> {};                                             \
  static const SoftwareGPU::Registration name##_registration(#name, threads, name##_launch::body<name##_parameters>); \
  static_assert(blocks > 0, "blocks on a multiprocessor");                                                            \
  extern "C" void name
