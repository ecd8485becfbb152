// SPDX-License-Identifier: Apache-2.0
#include "descriptor.hpp"

namespace cudnn {
namespace {

std::size_t bytes_of(int type) {
  switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    default: return 4;
  }
}

struct Rule {
  int descriptor, type;
  /// 0: any number.
  std::int64_t count;
};

/// Of each attribute, whose it is and what it must be.
const std::map<int, Rule>& rules() {
  static const std::map<int, Rule> all = [] {
    std::map<int, Rule> made;
    const auto descriptor = [&](int name, int owner) { made[name] = {owner, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}; };
    constexpr int tensor = CUDNN_BACKEND_TENSOR_DESCRIPTOR, pack = CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR;
    constexpr int sdpa = CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR;
    constexpr int mask = CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR;
    constexpr int heuristics = CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, plan = CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR;
    made[CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT] = {tensor, CUDNN_TYPE_INT64, 1};
    made[CUDNN_ATTR_TENSOR_DATA_TYPE] = {tensor, CUDNN_TYPE_DATA_TYPE, 1};
    made[CUDNN_ATTR_TENSOR_DIMENSIONS] = {tensor, CUDNN_TYPE_INT64, 0};
    made[CUDNN_ATTR_TENSOR_STRIDES] = {tensor, CUDNN_TYPE_INT64, 0};
    made[CUDNN_ATTR_TENSOR_UNIQUE_ID] = {tensor, CUDNN_TYPE_INT64, 1};
    made[CUDNN_ATTR_TENSOR_IS_VIRTUAL] = {tensor, CUDNN_TYPE_BOOLEAN, 1};
    made[CUDNN_ATTR_TENSOR_IS_BY_VALUE] = {tensor, CUDNN_TYPE_BOOLEAN, 1};
    made[CUDNN_ATTR_TENSOR_RAGGED_OFFSET_MULTIPLIER] = {tensor, CUDNN_TYPE_INT64, 1};
    descriptor(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, tensor);
    for (const int name : {CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC,
                           CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC,
                           CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH,
                           CUDNN_ATTR_OPERATION_SDPA_FWD_SOFTMAX_DESC, CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_QDESC,
                           CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_KVDESC}) {
      descriptor(name, sdpa);
    }
    made[CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_INPUT_UID] = {sdpa, CUDNN_TYPE_INT64, 1};
    made[CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_OUTPUT_UID] = {sdpa, CUDNN_TYPE_INT64, 1};
    for (const int name : {CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC,
                           CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC,
                           CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_CU_SEQ_LEN_KVDESC,
                           CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_CU_SEQ_LEN_QDESC}) {
      descriptor(name, mask);
    }
    made[CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE] = {mask, CUDNN_TYPE_POINTWISE_MODE, 1};
    for (const int name : {CUDNN_ATTR_OPERATION_SOFTMAX_XDESC, CUDNN_ATTR_OPERATION_SOFTMAX_YDESC,
                           CUDNN_ATTR_OPERATION_SOFTMAX_STATS_DESC}) {
      descriptor(name, CUDNN_BACKEND_OPERATION_SOFTMAX_DESCRIPTOR);
    }
    made[CUDNN_ATTR_MATMUL_COMP_TYPE] = {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE, 1};
    for (const int name : {CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC,
                           CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_ATTR_OPERATION_MATMUL_DESC}) {
      descriptor(name, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    }
    descriptor(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    made[CUDNN_ATTR_OPERATIONGRAPH_IS_OVERRIDE_SHAPE_ENABLED] = {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
                                                                 CUDNN_TYPE_BOOLEAN, 1};
    made[CUDNN_ATTR_DEVICEPROP_HANDLE] = {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_TYPE_HANDLE, 1};
    made[CUDNN_ATTR_ENGINEHEUR_MODE] = {heuristics, CUDNN_TYPE_HEUR_MODE, 1};
    descriptor(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, heuristics);
    descriptor(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, heuristics);
    descriptor(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, plan);
    descriptor(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, plan);
    made[CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION] = {plan, CUDNN_TYPE_CHAR, 0};
    made[CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS] = {pack, CUDNN_TYPE_INT64, 0};
    made[CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS] = {pack, CUDNN_TYPE_VOID_PTR, 0};
    made[CUDNN_ATTR_VARIANT_PACK_WORKSPACE] = {pack, CUDNN_TYPE_VOID_PTR, 1};
    made[CUDNN_ATTR_VARIANT_PACK_OVERRIDE_UNIQUE_IDS] = {pack, CUDNN_TYPE_INT64, 0};
    made[CUDNN_ATTR_VARIANT_PACK_OVERRIDE_SHAPES] = {pack, CUDNN_TYPE_VOID_PTR, 1};
    made[CUDNN_ATTR_VARIANT_PACK_OVERRIDE_STRIDES] = {pack, CUDNN_TYPE_VOID_PTR, 1};
    return made;
  }();
  return all;
}

/// These are handed over as a std::vector of them, by its address; read here and now.
Descriptor::Attribute of_vectors(const void* elements) {
  const auto& all = *static_cast<const std::vector<std::vector<std::int64_t>>*>(elements);
  Descriptor::Attribute made{CUDNN_TYPE_INT64, 0, {}};
  for (const auto& each : all) {
    require(each.size() == 4, CUDNN_STATUS_BAD_PARAM, "an override is not of four dimensions");
    const auto* bytes = reinterpret_cast<const unsigned char*>(each.data());
    made.bytes.insert(made.bytes.end(), bytes, bytes + 32);
  }
  made.count = static_cast<std::int64_t>(made.bytes.size() / 8);
  return made;
}

}  // namespace

void set(Descriptor& descriptor, int name, int type, std::int64_t count, const void* elements) {
  require(!descriptor.is_final, CUDNN_STATUS_BAD_PARAM, "the descriptor is final");
  const auto rule = rules().find(name);
  require(rule != rules().end() && rule->second.descriptor == descriptor.type, CUDNN_STATUS_NOT_SUPPORTED,
          "attribute " + std::to_string(name) + " is not this descriptor's");
  require(rule->second.type == type, CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
          "attribute " + std::to_string(name) + " is of another type");
  require(count > 0 && (rule->second.count == 0 || rule->second.count == count), CUDNN_STATUS_BAD_PARAM,
          "attribute " + std::to_string(name) + " has another number of elements");
  require(elements != nullptr, CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no elements");
  if (name == CUDNN_ATTR_VARIANT_PACK_OVERRIDE_SHAPES || name == CUDNN_ATTR_VARIANT_PACK_OVERRIDE_STRIDES) {
    // The pointer itself is the attribute's element.
    descriptor.attributes[name] = of_vectors(elements);
    return;
  }
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    const auto* referred = *static_cast<const Descriptor* const*>(elements);
    require(is_alive(referred), CUDNN_STATUS_BAD_PARAM, "no descriptor is referred to");
    require(referred->is_final, CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a descriptor that is referred to is not final");
  }
  const auto* bytes = static_cast<const unsigned char*>(elements);
  descriptor.attributes[name] = {type, count, {bytes, bytes + static_cast<std::size_t>(count) * bytes_of(type)}};
}

}  // namespace cudnn
