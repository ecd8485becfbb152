// cuDNN's descriptors: bags of attributes that are checked once and final then.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../../cudnn.h"

namespace cudnn {

/// How a call ends early.
struct Failure {
  cudnnStatus_t status;
  std::string text;
};

inline void require(bool condition, cudnnStatus_t status, const std::string& text) {
  if (!condition) throw Failure{status, text};
}

struct Plan;
using Extents = std::array<std::int64_t, 4>;

struct Descriptor;
/// Whether it has been made and not destroyed.
bool is_alive(const Descriptor* descriptor);

struct Descriptor {
  struct Attribute {
    int type;
    std::int64_t count;
    std::vector<unsigned char> bytes;
  };

  int type;
  bool is_final = false;
  std::map<int, Attribute> attributes;
  /// Of a final execution plan.
  std::shared_ptr<const Plan> plan;

  bool has(int name) const { return attributes.count(name) > 0; }

  /// One that must be there, of one element.
  template <class Value>
  Value get(int name) const {
    const auto found = attributes.find(name);
    require(found != attributes.end() && found->second.count == 1 && found->second.bytes.size() == sizeof(Value),
            CUDNN_STATUS_BAD_PARAM, "attribute " + std::to_string(name) + " is missing");
    Value value;
    std::memcpy(&value, found->second.bytes.data(), sizeof(Value));
    return value;
  }
  template <class Value>
  Value get_or(int name, Value otherwise) const {
    return has(name) ? get<Value>(name) : otherwise;
  }
  template <class Value>
  std::vector<Value> list(int name) const {
    const auto found = attributes.find(name);
    if (found == attributes.end()) return {};
    std::vector<Value> values(found->second.bytes.size() / sizeof(Value));
    std::memcpy(values.data(), found->second.bytes.data(), found->second.bytes.size());
    return values;
  }
  Extents extents(int name) const {
    const std::vector<std::int64_t> values = list<std::int64_t>(name);
    require(values.size() == 3 || values.size() == 4, CUDNN_STATUS_BAD_PARAM, "a tensor is of three or four dimensions");
    return {values[0], values[1], values[2], values.size() == 4 ? values[3] : 1};
  }
  /// What an attribute refers to, of this type.
  const Descriptor& referred(int name, int wanted_type) const {
    const auto* found = get<const Descriptor*>(name);
    require(is_alive(found), CUDNN_STATUS_BAD_PARAM, "attribute " + std::to_string(name) + " is destroyed");
    require(found->type == wanted_type, CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
            "attribute " + std::to_string(name) + " is of another descriptor type");
    return *found;
  }
};

/// Attributes whose types and counts are right; what they say is for `finalize`.
void set(Descriptor& descriptor, int name, int type, std::int64_t count, const void* elements);

}  // namespace cudnn
