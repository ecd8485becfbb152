// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "../library_work.hpp"
#include "handle.hpp"
#include "product.hpp"

namespace cudnn {

long compilations = 0, loads = 0;

Tensor tensor_of(const Descriptor& owner, int name, std::size_t rank) {
  const Descriptor& d = owner.referred(name, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  for (const int extents : {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_ATTR_TENSOR_STRIDES}) {
    require(d.list<std::int64_t>(extents).size() == rank, CUDNN_STATUS_BAD_PARAM, "a tensor of another rank");
  }
  Tensor made{};
  made.uid = d.get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  made.dimensions = d.extents(CUDNN_ATTR_TENSOR_DIMENSIONS);
  made.strides = d.extents(CUDNN_ATTR_TENSOR_STRIDES);
  made.alignment = d.get<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  made.type = d.get<int>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  made.is_virtual = d.get_or(CUDNN_ATTR_TENSOR_IS_VIRTUAL, false);
  made.is_by_value = d.get_or(CUDNN_ATTR_TENSOR_IS_BY_VALUE, false);
  made.multiplier = d.get_or<std::int64_t>(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_MULTIPLIER, 1);
  if (d.has(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC)) {
    made.ragged_uid = d.referred(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, CUDNN_BACKEND_TENSOR_DESCRIPTOR)
                          .get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  }
  return made;
}

namespace {

void check_tensor(const Descriptor& d) {
  require(d.get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID) != 0, CUDNN_STATUS_BAD_PARAM, "a tensor without an id");
  for (const std::int64_t size : d.extents(CUDNN_ATTR_TENSOR_DIMENSIONS)) {
    require(size > 0, CUDNN_STATUS_BAD_PARAM, "a dimension is not positive");
  }
  d.extents(CUDNN_ATTR_TENSOR_STRIDES);
  d.get<int>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  require(d.get<std::int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) > 0, CUDNN_STATUS_BAD_PARAM, "alignment");
  require(!d.has(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_MULTIPLIER) || d.has(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC),
          CUDNN_STATUS_BAD_PARAM, "a multiplier of no offsets");
}

bool is_scalar(const Tensor& t) { return t.is_by_value && t.dimensions == Extents{1, 1, 1, 1}; }

/// Of rows at offsets: [sequences, heads, rows, width], 16 bytes at a time.
void check_rows(const Tensor& t, const Tensor& offsets, const Extents& wanted, const char* name) {
  require(t.dimensions == wanted, CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, std::string(name) + " is of another shape");
  require(t.ragged_uid == offsets.uid && t.multiplier == t.strides[2], CUDNN_STATUS_NOT_SUPPORTED_LAYOUT,
          std::string(name) + " is not at the offsets of its rows");
  const bool is_aligned = t.strides[3] == 1 && t.strides[1] % 8 == 0 && t.strides[2] % 8 == 0 && t.alignment >= 16;
  require(is_aligned, CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, std::string(name) + " is not aligned to 16 bytes");
  require(t.type == CUDNN_DATA_BFLOAT16 || t.type == CUDNN_DATA_HALF, CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, name);
  require(wanted[3] % 8 == 0 && wanted[3] <= 256, CUDNN_STATUS_NOT_SUPPORTED_SHAPE, "a head dimension beyond 256");
}

void check_offsets(const Tensor& t, std::int64_t sequences) {
  const bool is_right = t.dimensions == Extents{sequences + 1, 1, 1, 1} && t.type == CUDNN_DATA_INT32;
  require(is_right && !t.is_virtual, CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "offsets are not one more than sequences");
}

void describe_mask(const Descriptor& sdpa, Plan& plan, const Extents& scores) {
  const Descriptor& graph =
      sdpa.referred(CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  const Descriptor& mask =
      graph.referred(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR);
  plan.mask_value = tensor_of(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC);
  const Tensor x = tensor_of(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC);
  const Tensor y = tensor_of(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC);
  require(mask.get<int>(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE) == CUDNN_POINTWISE_CMP_GE,
          CUDNN_STATUS_NOT_SUPPORTED, "a mask of another comparison");
  require(x.uid == sdpa.get<std::int64_t>(CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_INPUT_UID) &&
              y.uid == sdpa.get<std::int64_t>(CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_OUTPUT_UID),
          CUDNN_STATUS_BAD_PARAM, "the mask is not between the subgraph's ends");
  require(x.is_virtual && y.is_virtual && x.dimensions == scores && y.dimensions == scores && is_scalar(plan.mask_value),
          CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "the mask is not of the scores");
  plan.is_bottom_right = mask.has(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_CU_SEQ_LEN_QDESC);
  require(plan.is_bottom_right == mask.has(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_CU_SEQ_LEN_KVDESC),
          CUDNN_STATUS_NOT_SUPPORTED, "a mask that knows offsets of one side");
  if (!plan.is_bottom_right) return;
  require(tensor_of(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_CU_SEQ_LEN_QDESC).uid == plan.query_offsets.uid &&
              tensor_of(mask, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_CU_SEQ_LEN_KVDESC).uid == plan.key_offsets.uid,
          CUDNN_STATUS_NOT_SUPPORTED, "a mask by other offsets than the attention's");
}

/// What a graph of one operation describes.
Plan plan_of(const Descriptor& graph) {
  const auto* const operation = graph.get<const Descriptor*>(CUDNN_ATTR_OPERATIONGRAPH_OPS);
  if (is_alive(operation) && operation->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) {
    Plan plan{};
    plan.is_product = true;
    plan.product = product_of(*operation);
    return plan;
  }
  const Descriptor& sdpa =
      graph.referred(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
  const Descriptor& softmax =
      sdpa.referred(CUDNN_ATTR_OPERATION_SDPA_FWD_SOFTMAX_DESC, CUDNN_BACKEND_OPERATION_SOFTMAX_DESCRIPTOR);
  Plan plan{};
  plan.q = tensor_of(sdpa, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC);
  plan.k = tensor_of(sdpa, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC);
  plan.v = tensor_of(sdpa, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC);
  plan.out = tensor_of(sdpa, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC);
  plan.scale = tensor_of(sdpa, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC);
  plan.query_offsets = tensor_of(sdpa, CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_QDESC);
  plan.key_offsets = tensor_of(sdpa, CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_KVDESC);
  if (softmax.has(CUDNN_ATTR_OPERATION_SOFTMAX_STATS_DESC)) {
    plan.stats = tensor_of(softmax, CUDNN_ATTR_OPERATION_SOFTMAX_STATS_DESC);
  }
  plan.is_causal = sdpa.has(CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH);
  plan.takes_overrides = graph.get_or(CUDNN_ATTR_OPERATIONGRAPH_IS_OVERRIDE_SHAPE_ENABLED, false);

  const auto [b, h, s, d] = plan.q.dimensions;
  const std::int64_t keys = plan.k.dimensions[2], width = plan.v.dimensions[3];
  const Extents scores{b, h, s, keys};
  check_rows(plan.q, plan.query_offsets, {b, h, s, d}, "q");
  check_rows(plan.k, plan.key_offsets, {b, h, keys, d}, "k");
  check_rows(plan.v, plan.key_offsets, {b, h, keys, width}, "v");
  check_rows(plan.out, plan.query_offsets, {b, h, s, width}, "out");
  check_offsets(plan.query_offsets, b);
  check_offsets(plan.key_offsets, b);
  require(is_scalar(plan.scale), CUDNN_STATUS_BAD_PARAM, "a scale that is no value");
  for (const int name : {CUDNN_ATTR_OPERATION_SOFTMAX_XDESC, CUDNN_ATTR_OPERATION_SOFTMAX_YDESC}) {
    const Tensor each = tensor_of(softmax, name);
    require(each.is_virtual && each.dimensions == scores, CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "scores");
  }
  if (plan.stats.uid != 0) {
    const bool is_right = plan.stats.dimensions == Extents{b, h, s, 1} && plan.stats.type == CUDNN_DATA_FLOAT &&
                          plan.stats.ragged_uid == plan.query_offsets.uid && plan.stats.multiplier == plan.stats.strides[2];
    require(is_right, CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, "stats are of another layout");
  }
  if (plan.is_causal) describe_mask(sdpa, plan, scores);
  return plan;
}

const char header[] = "plan of the model machine\n";

Plan plan_from(const std::string& text, int capability) {
  const std::size_t begin = sizeof(header) - 1;
  require(text.size() == begin + sizeof(Plan) && text.compare(0, begin, header) == 0, CUDNN_STATUS_BAD_PARAM,
          "what was serialised is damaged");
  Plan plan{};
  std::memcpy(static_cast<void*>(&plan), text.data() + begin, sizeof(plan));
  require(plan.version == cudnnGetVersion(), CUDNN_STATUS_SERIALIZATION_VERSION_MISMATCH, "of another version");
  require(plan.capability == capability, CUDNN_STATUS_NOT_SUPPORTED, "of another device");
  return plan;
}

int capability_of(const Descriptor& owner, int name) {
  return owner.referred(name, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)
      .get<const Handle*>(CUDNN_ATTR_DEVICEPROP_HANDLE)
      ->capability;
}

/// Versions before 9.25 end the process without it.
void require_cublaslt() {
  if (cudnnGetVersion() < 92500 && dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_NOLOAD) == nullptr) std::abort();
}

void finalize_plan(Descriptor& descriptor) {
  const int capability = capability_of(descriptor, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
  // It loads code.
  require(gpu_machine_require_no_capture() == CUDA_SUCCESS, CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER,
          "code cannot be loaded");
  if (descriptor.has(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION)) {
    const auto text = descriptor.list<char>(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
    descriptor.plan = std::make_shared<Plan>(plan_from({text.begin(), text.end()}, capability));
    ++loads;
    return;
  }
  const Descriptor& choice =
      descriptor.referred(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  require(choice.plan != nullptr, CUDNN_STATUS_BAD_PARAM, "a configuration that no heuristics gave");
  auto plan = std::make_shared<Plan>(*choice.plan);
  plan->version = cudnnGetVersion();
  plan->capability = capability;
  descriptor.plan = plan;
  ++compilations;
}

void finalize_pack(const Descriptor& d) {
  const auto ids = d.list<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  require(ids.size() == d.list<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).size(),
          CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT, "as many pointers as ids");
  for (const std::int64_t id : ids) {
    require(std::count(ids.begin(), ids.end(), id) == 1, CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "an id twice");
  }
  const std::size_t overrides = d.list<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_OVERRIDE_UNIQUE_IDS).size() * 4;
  for (const int name : {CUDNN_ATTR_VARIANT_PACK_OVERRIDE_SHAPES, CUDNN_ATTR_VARIANT_PACK_OVERRIDE_STRIDES}) {
    require(d.list<std::int64_t>(name).size() == overrides, CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT,
            "as many overrides as ids of them");
  }
}

}  // namespace

void finalize(Descriptor& descriptor) {
  require(!descriptor.is_final, CUDNN_STATUS_BAD_PARAM, "the descriptor is final");
  switch (descriptor.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: check_tensor(descriptor); break;
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
      require(is_open(descriptor.get<const Handle*>(CUDNN_ATTR_DEVICEPROP_HANDLE)), CUDNN_STATUS_BAD_PARAM, "no handle");
      break;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: {
      require_cublaslt();
      require(descriptor.get<int>(CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_A, CUDNN_STATUS_NOT_SUPPORTED, "mode");
      require(capability_of(descriptor, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP) >= 80, CUDNN_STATUS_NOT_SUPPORTED, "device");
      descriptor.plan = std::make_shared<Plan>(plan_of(descriptor.referred(
          CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)));
      break;
    }
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: finalize_plan(descriptor); break;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: finalize_pack(descriptor); break;
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR: require(false, CUDNN_STATUS_NOT_SUPPORTED, "heuristics give them"); break;
    // Operations are judged with the graph that they are of.
    default: break;
  }
  descriptor.is_final = true;
}

std::string serialised(const Plan& plan) {
  return header + std::string(reinterpret_cast<const char*>(&plan), sizeof(plan));
}

}  // namespace cudnn
