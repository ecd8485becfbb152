// An engine's prefill step over several layers, with one FLASHINFER plan.
//
// Three requests bring new tokens; two of them continue a cached context, which
// is cut into chunks that fit a row budget. The batch is prepared once; every
// layer then runs its new tokens and its chunks against the same plan and merges
// what comes out. The result is compared with plain attention over all keys.
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "mla_prefill.hpp"

namespace {

constexpr std::int32_t num_layers = 4;
constexpr std::int32_t num_heads = 8;
constexpr std::int32_t nope_dim = 128;
constexpr std::int32_t rope_dim = 64;
constexpr std::int32_t qk_dim = nope_dim + rope_dim;
constexpr std::int32_t v_dim = 128;
const double scale = 1.0 / std::sqrt(static_cast<double>(qk_dim));

/// Rows of [heads, dim] floats.
struct Rows {
  Rows(std::int64_t rows, std::int64_t row_dim)
      : count(rows),
        dim(row_dim),
        values(static_cast<std::size_t>(rows * num_heads * row_dim)) {}

  mla::tensor view() { return {values.data(), {count, num_heads, dim}}; }
  const float* at(std::int64_t row, std::int64_t head) const {
    return values.data() + (row * num_heads + head) * dim;
  }
  float* row(std::int64_t row) { return values.data() + row * num_heads * dim; }

  std::int64_t count;
  std::int64_t dim;
  std::vector<float> values;
};

/// lse [heads, tokens]; a token that no chunk has touched has seen no keys.
struct Lse {
  explicit Lse(std::int64_t num_tokens)
      : tokens(num_tokens),
        values(static_cast<std::size_t>(num_heads * num_tokens),
               -std::numeric_limits<float>::infinity()) {}

  mla::tensor view() { return {values.data(), {num_heads, tokens}}; }

  std::int64_t tokens;
  std::vector<float> values;
};

/// What a step works on: the same for all layers.
struct Batch {
  std::vector<std::int32_t> query_start_loc{0, 40, 75, 171};
  std::vector<std::int32_t> context_lens{300, 0, 130};

  std::int32_t requests() const { return static_cast<std::int32_t>(context_lens.size()); }
  std::int32_t tokens() const { return query_start_loc.back(); }
};

/// One layer's tensors: new tokens, and each request's cached context.
struct Layer {
  Layer(const Batch& batch, std::mt19937& random)
      : q(batch.tokens(), qk_dim), k(batch.tokens(), qk_dim), v(batch.tokens(), v_dim) {
    fill(q, random);
    fill(k, random);
    fill(v, random);
    for (std::int32_t length : batch.context_lens) {
      context_k.emplace_back(length, qk_dim);
      context_v.emplace_back(length, v_dim);
      fill(context_k.back(), random);
      fill(context_v.back(), random);
    }
  }

  static void fill(Rows& rows, std::mt19937& random) {
    std::normal_distribution<float> normal;
    for (float& value : rows.values) value = normal(random);
  }

  Rows q, k, v;
  std::vector<Rows> context_k, context_v;
};

/// The rows of a chunk, gathered from the cache of each of its requests.
Rows gather(std::vector<Rows>& cache, const mla_context_plan_chunk& chunk, std::int64_t dim) {
  const std::int32_t requests = chunk.request_end - chunk.request_begin;
  Rows gathered(chunk.cu_seq_lens[requests], dim);
  for (std::int32_t i = 0; i < requests; ++i) {
    Rows& cached = cache[static_cast<std::size_t>(chunk.request_begin + i)];
    std::copy_n(cached.row(chunk.starts[i]), chunk.seq_lens[i] * num_heads * dim,
                gathered.row(chunk.cu_seq_lens[i]));
  }
  return gathered;
}

/// Attention to the cached context, chunk after chunk.
void run_context(const mla::backend& backend, const mla::context_plan& plan, Layer& layer,
                 Rows& context_out, Lse& context_lse) {
  const mla::tensor q = layer.q.view(), out = context_out.view(), lse = context_lse.view();
  for (std::int32_t i = 0; i < plan.size(); ++i) {
    const mla_context_plan_chunk chunk = plan[i];
    Rows k = gather(layer.context_k, chunk, qk_dim);
    Rows v = gather(layer.context_v, chunk, v_dim);
    const std::int64_t begin = chunk.token_begin, end = chunk.token_end;
    Rows chunk_out(end - begin, v_dim);
    Lse chunk_lse(end - begin);
    const mla::tensor part = chunk_out.view(), part_lse = chunk_lse.view();
    backend.run_prefill_context_chunk(plan.chunk(i), q.narrow(0, begin, end), k.view(), v.view(),
                                      part, part_lse);
    // Tokens that no earlier chunk served have lse -inf so far: merging stores
    // the chunk's result for them, and adds it for a continued request.
    const mla::tensor rows = out.narrow(0, begin, end), rows_lse = lse.narrow(1, begin, end);
    mla::merge_attn_states(rows, &rows_lse, rows, rows_lse, part, part_lse);
  }
}

/// One layer of the step.
Rows run_layer(const mla::backend& backend, const mla::context_plan& plan, const Batch& batch,
               Layer& layer) {
  Rows out(batch.tokens(), v_dim), context_out(batch.tokens(), v_dim);
  Lse lse(batch.tokens()), context_lse(batch.tokens());
  const mla::tensor result = out.view(), result_lse = lse.view();
  backend.run_prefill_new_tokens(layer.q.view(), layer.k.view(), layer.v.view(), result,
                                 &result_lse);
  run_context(backend, plan, layer, context_out, context_lse);
  mla::merge_attn_states(result, nullptr, context_out.view(), context_lse.view(), result,
                         result_lse);
  return out;
}

/// Plain attention of one token to its context and to the new tokens up to it.
std::vector<double> reference(const Batch& batch, const Layer& layer, std::size_t request,
                              std::int32_t token, std::int64_t head) {
  const std::int32_t first = batch.query_start_loc[request];
  const std::int64_t context = batch.context_lens[request];
  const std::int64_t keys = context + (token - first) + 1;
  const auto key = [&](std::int64_t i) {
    return i < context ? layer.context_k[request].at(i, head)
                       : layer.k.at(first + i - context, head);
  };
  const auto value = [&](std::int64_t i) {
    return i < context ? layer.context_v[request].at(i, head)
                       : layer.v.at(first + i - context, head);
  };
  std::vector<double> scores(static_cast<std::size_t>(keys)), out(v_dim);
  for (std::int64_t i = 0; i < keys; ++i) {
    double dot = 0;
    for (std::int64_t d = 0; d < qk_dim; ++d) {
      dot += static_cast<double>(layer.q.at(token, head)[d]) * static_cast<double>(key(i)[d]);
    }
    scores[static_cast<std::size_t>(i)] = dot * scale;
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (std::int64_t i = 0; i < keys; ++i) {
    const double weight = std::exp(scores[static_cast<std::size_t>(i)] - largest);
    sum += weight;
    for (std::size_t d = 0; d < out.size(); ++d) {
      out[d] += weight * static_cast<double>(value(i)[d]);
    }
  }
  for (double& element : out) element /= sum;
  return out;
}

/// Relative L2 error over some tokens and heads of each request.
double error_of(const Batch& batch, const Layer& layer, const Rows& out) {
  double difference = 0, norm = 0;
  for (std::size_t request = 0; request < batch.context_lens.size(); ++request) {
    for (std::int32_t token = batch.query_start_loc[request];
         token < batch.query_start_loc[request + 1]; token += 13) {
      const std::int64_t head = token % num_heads;
      const std::vector<double> expected = reference(batch, layer, request, token, head);
      for (std::size_t d = 0; d < expected.size(); ++d) {
        const double got = static_cast<double>(out.at(token, head)[d]);
        difference += (got - expected[d]) * (got - expected[d]);
        norm += expected[d] * expected[d];
      }
    }
  }
  return std::sqrt(difference / norm);
}

mla::backend make_backend() {
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  config.num_heads = num_heads;
  config.scale = scale;
  config.kv_lora_rank = 512;
  config.qk_nope_head_dim = nope_dim;
  config.qk_rope_head_dim = rope_dim;
  config.v_head_dim = v_dim;
  return {"FLASHINFER", config};
}

mla::context_plan make_plan(const Batch& batch) {
  mla_context_plan_args args = MLA_CONTEXT_PLAN_ARGS_INIT;
  args.num_requests = batch.requests();
  args.context_lens = batch.context_lens.data();
  args.query_start_loc = batch.query_start_loc.data();
  args.row_budget = 160;
  args.block_size = 16;
  return mla::context_plan(args);
}

int run() {
  const Batch batch;
  const mla::context_plan plan = make_plan(batch);
  std::vector<mla_context_chunk> chunks;
  for (std::int32_t i = 0; i < plan.size(); ++i) chunks.push_back(plan.chunk(i));

  mla::backend backend = make_backend();
  backend.prepare_metadata(batch.query_start_loc, chunks);
  std::printf("%s: %d requests, %d new tokens, context in %d chunks, %d layers\n", backend.name(),
              batch.requests(), batch.tokens(), plan.size(), num_layers);

  std::mt19937 random(1);
  double worst = 0;
  for (std::int32_t i = 0; i < num_layers; ++i) {
    Layer layer(batch, random);
    const Rows out = run_layer(backend, plan, batch, layer);
    const double error = error_of(batch, layer, out);
    std::printf("  layer %d: error against plain attention %.1e\n", i, error);
    worst = std::max(worst, error);
  }
  return worst <= 2e-5 ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const mla::error& failure) {
    std::fprintf(stderr, "%s: %s\n", mla_status_name(failure.status()), failure.what());
    return 1;
  }
}
