// SPDX-License-Identifier: Apache-2.0
#include "context.hpp"

#include <algorithm>

namespace gpu {

int Device::shared_bytes_at_most() const {
  switch (capability) {
    case 80:
    case 87: return 163 * 1024;
    case 86:
    case 89:
    case 120: return 99 * 1024;
    default: return capability < 80 ? 64 * 1024 : 227 * 1024;
  }
}

void Context::begin() {
  is_alive_ = true;
  error_ = CUDA_SUCCESS;
}

void Context::end(Schedule& schedule) {
  is_alive_ = false;
  schedule.drop_all_of(this);
  device_.memory.free_all_of(this);
  legacy_ = {this, true, nullptr, nullptr, {}};
  per_thread_.clear();
  streams_.clear();
}

Stream& Context::per_thread() {
  std::unique_ptr<Stream>& found = per_thread_[std::this_thread::get_id()];
  if (found == nullptr) found.reset(new Stream{this, true, nullptr, nullptr, {}});
  return *found;
}

Stream& Context::create_stream(bool is_blocking) {
  streams_.emplace_back(new Stream{this, is_blocking, nullptr, nullptr, {}});
  return *streams_.back();
}

void Context::destroy_stream(const Stream& stream) {
  streams_.erase(std::find_if(streams_.begin(), streams_.end(),
                              [&](const auto& each) { return each.get() == &stream; }));
}

bool Context::has(const Stream* stream) const {
  return std::any_of(streams_.begin(), streams_.end(),
                     [&](const auto& each) { return each.get() == stream; });
}

}  // namespace gpu
