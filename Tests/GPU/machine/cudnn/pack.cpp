// SPDX-License-Identifier: Apache-2.0
#include "pack.hpp"

#include <algorithm>
#include <cmath>

namespace cudnn {

double load(const View& view, const char* at) {
  if (view.tensor.type == CUDNN_DATA_FLOAT) {
    float value;
    std::memcpy(&value, at, 4);
    return static_cast<double>(value);
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  if (view.tensor.type == CUDNN_DATA_BFLOAT16) {
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return static_cast<double>(value);
  }
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return static_cast<double>(half);
}

void store(const View& view, char* at, double value) {
  const auto single = static_cast<float>(value);
  if (view.tensor.type == CUDNN_DATA_FLOAT) {
    std::memcpy(at, &single, 4);
  } else if (view.tensor.type == CUDNN_DATA_HALF) {
    const auto half = static_cast<_Float16>(single);
    std::memcpy(at, &half, 2);
  } else {
    std::uint32_t bits;
    std::memcpy(&bits, &single, 4);
    const auto rounded = static_cast<std::uint16_t>(
        std::isnan(single) ? 0x7FC0 : (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    std::memcpy(at, &rounded, 2);
  }
}

Pointers::Pointers(const Plan& plan, const Descriptor& pack)
    : plan_(plan),
      ids_(pack.list<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS)),
      pointers_(pack.list<char*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)),
      override_ids_(pack.list<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_OVERRIDE_UNIQUE_IDS)),
      shapes_(pack.list<Extents>(CUDNN_ATTR_VARIANT_PACK_OVERRIDE_SHAPES)),
      strides_(pack.list<Extents>(CUDNN_ATTR_VARIANT_PACK_OVERRIDE_STRIDES)) {
  require(override_ids_.empty() || plan.takes_overrides, CUDNN_STATUS_NOT_SUPPORTED, "the plan's shapes are fixed");
}

char* Pointers::pointer(const Tensor& tensor) const {
  const auto found = std::find(ids_.begin(), ids_.end(), tensor.uid);
  require(found != ids_.end(), CUDNN_STATUS_BAD_PARAM, "a tensor of the plan is not in the pack");
  char* const at = pointers_[static_cast<std::size_t>(found - ids_.begin())];
  const bool is_aligned =
      tensor.is_by_value || reinterpret_cast<std::uintptr_t>(at) % static_cast<std::uintptr_t>(tensor.alignment) == 0;
  require(at != nullptr && is_aligned, CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "a pointer is not aligned");
  return at;
}

View Pointers::view(const Tensor& tensor) const {
  View made{tensor, pointer(tensor)};
  const auto found = std::find(override_ids_.begin(), override_ids_.end(), tensor.uid);
  if (found == override_ids_.end()) return made;
  const auto index = static_cast<std::size_t>(found - override_ids_.begin());
  made.tensor.dimensions = shapes_[index];
  made.tensor.strides = strides_[index];
  for (std::size_t i = 0; i < 4; ++i) {
    // Its workspace is that of the shape that it was made for.
    require(shapes_[index][i] > 0 && shapes_[index][i] <= tensor.dimensions[i], CUDNN_STATUS_NOT_SUPPORTED_SHAPE,
            "an override goes beyond the plan");
  }
  require(strides_[index][2] == tensor.multiplier || tensor.ragged_uid == 0, CUDNN_STATUS_NOT_SUPPORTED_LAYOUT,
          "an override of the stride that offsets count in");
  return made;
}

char* Pointers::workspace(const Descriptor& pack) const {
  if (plan_.workspace_bytes() == 0) return nullptr;
  char* const at = pack.get<char*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  require(at != nullptr && reinterpret_cast<std::uintptr_t>(at) % 128 == 0, CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
          "the workspace is not aligned");
  return at;
}

}  // namespace cudnn
