#include "tensor_copies.hpp"

#include <cstdint>
#include <cstring>

#include "../include/SoftwareGPU/memory.hpp"
#include "block.hpp"
#include "swizzle.hpp"

namespace SoftwareGPU {

static_assert(sizeof(TiledTensor) <= sizeof(TensorMap), "a map holds it");

bool encode_tensor_map(TensorMap& map, const TiledTensor& tensor) {
  const auto is_multiple_of_16 = [](long long bytes) { return bytes % 16 == 0; };
  if (tensor.dimensions < 1 || tensor.dimensions > TiledTensor::most_dimensions) return false;
  if (!is_multiple_of_16(static_cast<long long>(reinterpret_cast<std::uintptr_t>(tensor.start)))) return false;
  for (int i = 0; i < tensor.dimensions; ++i) {
    if (tensor.sizes[i] < 1 || tensor.sizes[i] > 1ll << 32 || tensor.box[i] < 1 || tensor.box[i] > 256) return false;
    if (i > 0 &&
        (!is_multiple_of_16(tensor.strides[i - 1]) || tensor.strides[i - 1] < 0 || tensor.strides[i - 1] >= 1ll << 40))
      return false;
  }
  // "The inner dimension must be at most the swizzle size."
  if (!is_multiple_of_16(2 * tensor.box[0]) || 2 * tensor.box[0] > swizzle_bytes) return false;
  std::memset(&map, 0, sizeof map);
  std::memcpy(&map, &tensor, sizeof tensor);
  return true;
}

namespace {

/// Of 16 bytes of a tile: where they are, null if out of bounds.
const unsigned char* source(const TiledTensor& tensor, long long x, long long y, long long z) {
  if (x < 0 || y < 0 || z < 0 || x >= tensor.sizes[0] || y >= tensor.sizes[1] || z >= tensor.sizes[2]) return nullptr;
  return static_cast<const unsigned char*>(tensor.start) + 2 * x + y * tensor.strides[0] + z * tensor.strides[1];
}

/// Calls `visit(row, bytes from the row's start, where they are, how many of 16)`.
template <class Visit>
void each_sixteen_bytes(const TiledTensor& tensor, const int (&at)[3], Visit visit) {
  for (int z = 0; z < tensor.box[2]; ++z) {
    for (int y = 0; y < tensor.box[1]; ++y) {
      for (int x = 0; x < tensor.box[0]; x += 8) {
        const long long left = tensor.sizes[0] - at[0] - x;
        visit(z * tensor.box[1] + y, 2 * x, source(tensor, at[0] + x, at[1] + y, at[2] + z),
              left < 8 ? static_cast<int>(2 * left) : 16);
      }
    }
  }
}

}  // namespace

void TensorCopies::issue(unsigned char* to, const TensorMap& map, const void* mbarrier, const int (&at)[3], Site site) {
  Copy copy{to, {}, {at[0], at[1], at[2]}, block.mbarriers.index_for_copy(mbarrier, site)};
  std::memcpy(&copy.tensor, &map, sizeof copy.tensor);
  const TiledTensor& tensor = copy.tensor;
  if (tensor.dimensions != 3)
    block.fail(Fault::illegal_instruction, site, "a copy of 3 dimensions by a map of %d", tensor.dimensions);
  if (at[0] % 8 != 0 || 2 * tensor.box[0] != swizzle_bytes)
    block.fail(Fault::illegal_instruction, site, "the model has tiles of whole swizzled rows alone");
  block.shared.offset_of(to, 2 * tensor.box[0] * tensor.box[1] * tensor.box[2], swizzle_alignment, "a tensor copy",
                         site);
  const Access access = block.mbarriers.access_of_copy(copy.mbarrier);
  each_sixteen_bytes(tensor, at, [&](int row, int offset, const unsigned char* from, int bytes) {
    block.shared.depart_with(access, Agent::thread(block.thread()), to + row * swizzle_bytes + offset, 16, site);
    if (from != nullptr) check_global(from, bytes, 16, site);
  });
  if (block.options.arrival == Arrival::early) {
    land(copy);
  } else {
    flying_.push_back(copy);
  }
}

void TensorCopies::land(const Copy& copy) {
  each_sixteen_bytes(copy.tensor, copy.at, [&](int row, int offset, const unsigned char* from, int bytes) {
    unsigned char* to = swizzled(copy.to + row * swizzle_bytes + offset);
    std::memset(to, 0, 16);
    if (from != nullptr) std::memcpy(to, from, static_cast<std::size_t>(bytes));
  });
  block.mbarriers.complete(copy.mbarrier, 2 * copy.tensor.box[0] * copy.tensor.box[1] * copy.tensor.box[2]);
}

void TensorCopies::land_one(Random& random) {
  if (flying_.empty()) return;
  const std::size_t index = random.below(static_cast<std::uint32_t>(flying_.size()));
  const Copy copy = flying_[index];
  flying_.erase(flying_.begin() + static_cast<std::ptrdiff_t>(index));
  land(copy);
}

void issue_tile(void* shared, const TensorMap& map, u64* mbarrier, int x, int y, int z, Site site) {
  block.tensor_copies.issue(static_cast<unsigned char*>(shared), map, mbarrier, {x, y, z}, site);
}

}  // namespace SoftwareGPU

void fence_async() { SoftwareGPU::block.shared.fence(SoftwareGPU::block.thread()); }
