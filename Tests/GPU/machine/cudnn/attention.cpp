// SPDX-License-Identifier: Apache-2.0
#include "attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../library_work.hpp"
#include "pack.hpp"

namespace cudnn {
namespace {

struct Launch {
  View q, k, v, out, stats;
  const std::int32_t *query_offsets, *key_offsets;
  char* workspace;
  std::size_t workspace_bytes;
  double scale;
  bool is_causal, is_bottom_right;
  /// Of scores that a query does not see.
  double mask_value;

  bool run(const gpu::Reach& reach) const;

 private:
  struct Row {
    std::int64_t sequence_key, query, head, keys;
    /// The first ones.
    std::int64_t seen;
  };
  bool run_row(const gpu::Reach& reach, const Row& row) const;
};

/// Rows without keys are NaN, as they were before 9.25.
bool Launch::run_row(const gpu::Reach& reach, const Row& row) const {
  const std::int64_t width = q.tensor.dimensions[3], values = v.tensor.dimensions[3];
  const char* const query = q.at(row.query, row.head);
  char* const result = out.at(row.query, row.head);
  if (!reach(query, static_cast<std::size_t>(2 * width)) || !reach(result, static_cast<std::size_t>(2 * values))) {
    return false;
  }
  std::vector<double> scores(static_cast<std::size_t>(row.keys)), sum(static_cast<std::size_t>(values));
  double largest = -std::numeric_limits<double>::infinity(), total = 0;
  for (std::int64_t j = 0; j < row.keys; ++j) {
    const char* const key = k.at(row.sequence_key + j, row.head);
    if (!reach(key, static_cast<std::size_t>(2 * width))) return false;
    double score = 0;
    for (std::int64_t d = 0; d < width; ++d) score += load(q, query + 2 * d) * load(k, key + 2 * d);
    score = j < row.seen ? score * scale : mask_value;
    scores[static_cast<std::size_t>(j)] = score;
    largest = std::max(largest, score);
  }
  for (std::int64_t j = 0; j < row.keys; ++j) {
    const char* const value = v.at(row.sequence_key + j, row.head);
    if (!reach(value, static_cast<std::size_t>(2 * values))) return false;
    const double weight = std::exp(scores[static_cast<std::size_t>(j)] - largest);
    total += weight;
    for (std::int64_t d = 0; d < values; ++d) sum[static_cast<std::size_t>(d)] += weight * load(v, value + 2 * d);
  }
  const double nothing = std::numeric_limits<double>::quiet_NaN();
  for (std::int64_t d = 0; d < values; ++d) {
    store(out, result + 2 * d, row.keys > 0 ? sum[static_cast<std::size_t>(d)] / total : nothing);
  }
  if (stats.data == nullptr) return true;
  char* const lse = stats.at(row.query, row.head);
  if (!reach(lse, 4)) return false;
  store(stats, lse, row.keys > 0 ? largest + std::log(total) : nothing);
  return true;
}

bool Launch::run(const gpu::Reach& reach) const {
  const std::int64_t sequences = q.tensor.dimensions[0];
  const auto offset_bytes = static_cast<std::size_t>(4 * (sequences + 1));
  if (!reach(query_offsets, offset_bytes) || !reach(key_offsets, offset_bytes)) return false;
  // All of it is used.
  if (workspace_bytes > 0 && !reach(workspace, workspace_bytes)) return false;
  if (workspace_bytes > 0) std::memset(workspace, 0x5A, workspace_bytes);
  for (std::int64_t b = 0; b < sequences; ++b) {
    const std::int64_t queries = query_offsets[b + 1] - query_offsets[b], keys = key_offsets[b + 1] - key_offsets[b];
    // What lies beyond the shape no block works on: a caller's fault.
    if (queries < 0 || keys < 0 || queries > q.tensor.dimensions[2] || keys > k.tensor.dimensions[2]) return false;
    const std::int64_t diagonal = is_bottom_right ? keys - queries : 0;
    for (std::int64_t head = 0; head < q.tensor.dimensions[1]; ++head) {
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t seen = is_causal ? std::min(keys, i + diagonal + 1) : keys;
        const Row row{key_offsets[b], query_offsets[b] + i, head, keys, seen};
        if (!run_row(reach, row)) return false;
      }
    }
  }
  return true;
}

float value_at(const char* pointer) {
  float value;
  std::memcpy(&value, pointer, 4);
  return value;
}

void check_shapes(const Launch& launch, const View& query_offsets, const View& key_offsets) {
  const auto [b, h, s, d] = launch.q.tensor.dimensions;
  const std::int64_t keys = launch.k.tensor.dimensions[2], width = launch.v.tensor.dimensions[3];
  const bool agree = launch.k.tensor.dimensions == Extents{b, h, keys, d} &&
                     launch.v.tensor.dimensions == Extents{b, h, keys, width} &&
                     launch.out.tensor.dimensions == Extents{b, h, s, width} &&
                     query_offsets.tensor.dimensions[0] == b + 1 && key_offsets.tensor.dimensions[0] == b + 1 &&
                     (launch.stats.data == nullptr || launch.stats.tensor.dimensions == Extents{b, h, s, 1});
  require(agree, CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "the call's shapes do not agree");
}

}  // namespace

void execute(const Plan& plan, const Descriptor& pack, CUstream stream) {
  const Pointers pointers(plan, pack);
  const View query_offsets = pointers.view(plan.query_offsets), key_offsets = pointers.view(plan.key_offsets);
  Launch launch{};
  launch.q = pointers.view(plan.q);
  launch.k = pointers.view(plan.k);
  launch.v = pointers.view(plan.v);
  launch.out = pointers.view(plan.out);
  if (plan.stats.uid != 0) launch.stats = pointers.view(plan.stats);
  launch.query_offsets = reinterpret_cast<const std::int32_t*>(query_offsets.data);
  launch.key_offsets = reinterpret_cast<const std::int32_t*>(key_offsets.data);
  launch.workspace = pointers.workspace(pack);
  launch.workspace_bytes = plan.workspace_bytes();
  launch.scale = static_cast<double>(value_at(pointers.pointer(plan.scale)));
  launch.is_causal = plan.is_causal;
  launch.is_bottom_right = plan.is_bottom_right;
  if (plan.is_causal) launch.mask_value = static_cast<double>(value_at(pointers.pointer(plan.mask_value)));
  check_shapes(launch, query_offsets, key_offsets);
  const CUresult result = gpu_machine_submit(stream, [launch](const gpu::Reach& reach) { return launch.run(reach); });
  require(result == CUDA_SUCCESS, CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER,
          "the driver says " + std::to_string(result));
}

}  // namespace cudnn
