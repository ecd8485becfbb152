// DLPack: the structs of its ABI that this extension exchanges, and a borrow.
#pragma once

#include <cstdint>

#include "calls.h"

namespace mla_python {

enum : std::int32_t { kDLCPU = 1 };
enum : std::uint8_t { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLFloat8_e4m3fn = 10 };

struct DLDevice {
  std::int32_t device_type;
  std::int32_t device_id;
};

struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct DLTensor {
  void *data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t *shape;
  std::int64_t *strides;
  std::uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(DLManagedTensor *);
};

struct DLPackVersion {
  std::uint32_t major;
  std::uint32_t minor;
};

struct DLManagedTensorVersioned {
  DLPackVersion version;
  void *manager_ctx;
  void (*deleter)(DLManagedTensorVersioned *);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

constexpr std::uint64_t kDLReadOnly = 1;
constexpr std::uint64_t kDLIsCopied = 2;

bool is_torch_tensor(nb::handle value);

/// What a tensor's producer says of its memory.
enum class Writing { allowed, forbidden, unknown };

/// What an object's `__dlpack__` describes, for as long as the borrow lives. The
/// capsule is kept, never consumed: its own destructor gives the memory back.
class DLPackBorrow {
 public:
  /// ValueError that begins with `name` where the object is not on the CPU or
  /// refuses, TypeError where it does not speak DLPack.
  DLPackBorrow(nb::handle value, const char *name);

  const DLTensor &tensor() const { return *tensor_; }
  /// Unknown of capsules from before version 1: to JAX, whose are, all are read-only.
  Writing writing() const { return writing_; }
  nb::object capsule() const { return capsule_; }

 private:
  nb::object capsule_;
  const DLTensor *tensor_ = nullptr;
  Writing writing_ = Writing::unknown;
};

}  // namespace mla_python
