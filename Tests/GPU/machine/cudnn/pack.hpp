// What a run hands over: tensors where they lie, in the shapes of the call.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "plan.hpp"

namespace cudnn {

/// A tensor where it lies.
struct View {
  Tensor tensor;
  char* data;

  std::int64_t bytes() const { return tensor.type == CUDNN_DATA_FLOAT || tensor.type == CUDNN_DATA_INT32 ? 4 : 2; }
  /// Of those whose rows are at offsets.
  char* at(std::int64_t row, std::int64_t head) const {
    return data + bytes() * (row * tensor.multiplier + head * tensor.strides[1]);
  }
};

double load(const View& view, const char* at);
/// Rounded to nearest even.
void store(const View& view, char* at, double value);

/// The pointers of a pack, by the ids of a plan's tensors.
class Pointers {
 public:
  Pointers(const Plan& plan, const Descriptor& pack);

  char* pointer(const Tensor& tensor) const;
  /// In the shape of the call, where that is another than the plan's.
  View view(const Tensor& tensor) const;
  char* workspace(const Descriptor& pack) const;

 private:
  const Plan& plan_;
  std::vector<std::int64_t> ids_;
  std::vector<char*> pointers_;
  std::vector<std::int64_t> override_ids_;
  std::vector<Extents> shapes_, strides_;
};

}  // namespace cudnn
