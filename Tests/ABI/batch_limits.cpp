// Batches at the header's bounds: their sizes are told, or refused with a message, and
// planning them takes as much memory as the header says.
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "address_space.hpp"
#include "support.hpp"

namespace {

constexpr std::int64_t most_requests = 1 << 20, most_pairs = 1 << 24,
                       most_elements = std::int64_t{1} << 44, longest = INT32_MAX;

/// How the rows of a batch are shared among its requests.
enum class Lengths { equal, one_long, falling, none };
constexpr Lengths all_lengths[] = {Lengths::equal, Lengths::one_long, Lengths::falling,
                                   Lengths::none};

std::vector<std::int32_t> offsets(std::int64_t requests, std::int64_t rows, Lengths lengths) {
  std::vector<std::int32_t> offsets{0};
  for (std::int64_t i = 0; i < requests; ++i) {
    std::int64_t count = rows / requests;
    if (lengths == Lengths::none) count = 0;
    if (lengths == Lengths::one_long) count = i == 0 ? rows - requests + 1 : 1;
    if (lengths == Lengths::falling) {
      count = 2 * (rows / requests) * (requests - i) / (requests + 1);
    }
    offsets.push_back(static_cast<std::int32_t>(std::min(longest, offsets.back() + count)));
  }
  return offsets;
}

std::int64_t most_rows(const test::Model& model) {
  return std::min(longest, most_elements / (std::int64_t{model.heads} * model.v));
}

/// MLA_OK with a size, or a status with a message.
void expect_answer(mla_status status, std::int64_t bytes, const std::string& what) {
  if (status == MLA_OK) {
    EXPECT(bytes >= 0, "%s: %lld bytes", what.c_str(), static_cast<long long>(bytes));
  } else {
    EXPECT(*mla_last_error_message() != '\0', "%s: status %d without a message", what.c_str(),
           status);
  }
}

/// A batch of new tokens, and one of as many requests' queries on a chunk of keys.
void ask(const char* name, const test::Model& model, std::int64_t requests, Lengths lengths) {
  const std::vector<std::int32_t> rows = offsets(requests, most_rows(model), lengths);
  const std::vector<std::int32_t> keys = offsets(requests, longest, Lengths::equal);
  mla::backend backend(name, model.config(MLA_ISA_DEFAULT));
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  chunk.num_requests = static_cast<std::int32_t>(requests);
  chunk.query_start_loc = rows.data();
  chunk.cu_seq_lens = keys.data();
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  metadata.num_requests = chunk.num_requests;
  metadata.query_start_loc = rows.data();
  metadata.chunks = &chunk;
  metadata.num_chunks = 1;
  const std::string what = std::string(name) + ", " + std::to_string(requests) + " requests, " +
                           std::to_string(rows.back()) + " rows, " +
                           std::to_string(model.heads) + " heads";
  EXPECT(mla_prepare_metadata(backend.get(), &metadata) == MLA_OK, "%s: %s", what.c_str(),
         mla_last_error_message());
  std::int64_t bytes = -1;
  const mla_status status = mla_workspace_size(backend.get(), &bytes);
  expect_answer(status, bytes, what);
}

/// One request more than there may be with so many heads.
void one_request_too_many() {
  const test::Model model{65536, 1, 0, 1, 0};
  const std::int64_t most = most_pairs / model.heads;
  mla::backend backend("CPU", model.config(MLA_ISA_DEFAULT));
  for (const std::int64_t requests : {most, most + 1}) {
    const std::vector<std::int32_t> rows = offsets(requests, requests, Lengths::equal);
    mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
    metadata.num_requests = static_cast<std::int32_t>(requests);
    metadata.query_start_loc = rows.data();
    const mla_status status = mla_prepare_metadata(backend.get(), &metadata);
    EXPECT(status == (requests > most ? MLA_ERROR_INVALID_ARGUMENT : MLA_OK), "%lld requests: %s",
           static_cast<long long>(requests), mla_status_name(status));
  }
}

void backends_at_their_bounds() {
  const test::Model models[] = {{1, 1, 0, 1, 0},       {16, 128, 64, 128, 512},
                                {2892, 1, 0, 1, 0},    {8192, 1, 1, 2, 0},
                                {65536, 1, 0, 1, 0},   {1, 65536, 65536, 65536, 65536},
                                {65536, 65536, 65536, 65536, 65536}};
  for (std::int32_t threads : {1, 3, 1024}) {
    mla::check(mla_set_num_threads(threads));
    for (const char* name : {"FLASH_ATTN", "FLASHINFER", "CPU"}) {
      for (const test::Model& model : models) {
        for (std::int64_t requests : {1, 2, 250, 5800}) {
          if (requests * model.heads > most_pairs || requests > most_rows(model)) continue;
          for (Lengths lengths : all_lengths) ask(name, model, requests, lengths);
        }
      }
    }
  }
  ask("CPU", {16, 1, 0, 1, 0}, most_requests, Lengths::falling);
  mla::check(mla_set_num_threads(0));
}

/// A layer of small weights, whatever its dimensions.
class Layer {
 public:
  Layer(const test::Model& model, std::int32_t algorithm, std::int64_t bound, std::int32_t dtype)
      : weights_(static_cast<std::size_t>(model.heads) *
                 static_cast<std::size_t>((model.nope + model.v) * model.rank)) {
    mla_tensor weights = MLA_TENSOR_INIT;
    weights.dtype = MLA_DTYPE_BFLOAT16;
    weights.data = weights_.data();
    weights.ndim = 2;
    weights.shape[0] = std::int64_t{model.heads} * (model.nope + model.v);
    weights.shape[1] = weights.strides[0] = model.rank;
    weights.strides[1] = 1;
    mla_layer_config config = model.layer_config(weights);
    config.dtype = dtype;
    config.backend = "CPU";
    config.algorithm = algorithm;
    config.workspace_bound = bound;
    mla::check(mla_layer_create(&config, &layer_));
  }
  ~Layer() { mla_layer_destroy(layer_); }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  /// `contexts` may be empty: nobody has any.
  mla_status workspace_size(const std::vector<std::int32_t>& rows,
                            const std::vector<std::int32_t>& contexts, std::int64_t* bytes) const {
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = static_cast<std::int32_t>(rows.size()) - 1;
    args.query_start_loc = rows.data();
    args.context_lens = contexts.empty() ? nullptr : contexts.data();
    return mla_layer_workspace_size(layer_, &args, bytes);
  }

 private:
  std::vector<std::uint16_t> weights_;
  mla_layer* layer_ = nullptr;
};

void layers_at_their_bounds() {
  const test::Model models[] = {{1, 1, 0, 1, 1},
                                {16, 16, 8, 16, 32},
                                {256, 1, 0, 1, 8},
                                {1, 1, 65536, 1, 65536},
                                {65536, 1, 65536, 1, 1}};
  for (const test::Model& model : models) {
    for (std::int32_t algorithm :
         {MLA_LAYER_ALGORITHM_AUTO, MLA_LAYER_ALGORITHM_UP_PROJECTED, MLA_LAYER_ALGORITHM_ABSORBED}) {
      for (std::int64_t bound : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 30, INT64_MAX}) {
        const Layer layer(model, algorithm, bound, MLA_DTYPE_FLOAT32);
        for (std::int32_t threads : {1, 1024}) {
          mla::check(mla_set_num_threads(threads));
          for (std::int64_t requests : {1, 3, 256}) {
            for (Lengths lengths : all_lengths) {
              for (std::int32_t context : {0, 1 << 30, INT32_MAX}) {
                std::int64_t bytes = -1;
                const std::vector<std::int32_t> rows = offsets(requests, most_rows(model), lengths);
                const std::vector<std::int32_t> contexts(rows.size() - 1, context);
                const mla_status status = layer.workspace_size(rows, contexts, &bytes);
                expect_answer(status, bytes, std::to_string(requests) + " requests");
                EXPECT(bound == 0 || status != MLA_OK || bytes <= bound, "%lld bytes",
                       static_cast<long long>(bytes));
              }
            }
          }
        }
      }
    }
  }
  const Layer layer({256, 1, 0, 1, 8}, MLA_LAYER_ALGORITHM_AUTO, 0, MLA_DTYPE_FLOAT32);
  std::int64_t bytes = -1;
  const mla_status status =
      layer.workspace_size(offsets(1 << 16, 1 << 16, Lengths::equal),
                           std::vector<std::int32_t>(1 << 16, 1 << 30), &bytes);
  expect_answer(status, bytes, "65536 requests on 2^30 of context");
  mla::check(mla_set_num_threads(0));
}

/// Rows that have no elements lie at any strides.
void rows_without_elements() {
  float lse[6] = {0, 0, 0, 0, 0, 0}, merged[6];
  mla_tensor none = MLA_TENSOR_INIT, sides = MLA_TENSOR_INIT, rows = MLA_TENSOR_INIT;
  none.dtype = sides.dtype = rows.dtype = MLA_DTYPE_FLOAT32;
  none.ndim = 3;
  none.shape[0] = 3, none.shape[1] = 2;
  none.strides[0] = INT64_MAX, none.strides[1] = INT64_MAX / 2, none.strides[2] = 1;
  sides.ndim = 2, sides.data = lse;
  sides.shape[0] = 2, sides.shape[1] = sides.strides[0] = 3, sides.strides[1] = 1;
  mla_tensor output_lse = sides;
  output_lse.data = merged;
  mla_merge_args merge = MLA_MERGE_ARGS_INIT;
  merge.output = merge.prefix_output = merge.suffix_output = &none;
  merge.prefix_lse = merge.suffix_lse = &sides;
  merge.output_lse = &output_lse;
  mla::check(mla_merge_attn_states(&merge));
  for (float value : merged) EXPECT(std::fabs(value - std::log(2.0F)) < 1e-6F, "lse %f", value);

  rows.ndim = 2, rows.shape[0] = 3, rows.strides[0] = INT64_MAX, rows.strides[1] = 1;
  const std::int64_t slots[] = {0, 5, 3};
  mla_concat_and_cache_args put = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  put.kv_c_normed = &rows;
  put.kv_cache = &none;
  put.slot_mapping = slots;
  put.num_slots = 3;
  mla::check(mla_concat_and_cache_mla(&put));

  const std::int32_t offsets[] = {0, 2}, blocks[] = {2};
  mla_gather_cache_args get = MLA_GATHER_CACHE_ARGS_INIT;
  get.kv_cache = &none;
  get.num_requests = 1;
  get.block_table = blocks;
  get.block_table_stride = get.max_blocks = 1;
  get.cu_seq_lens = offsets;
  get.dst = &rows;
  mla::check(mla_gather_and_maybe_dequant_cache(&get));
}

/// Sees how often it is prepared.
struct Counted {
  explicit Counted(const mla_backend_config&) {}
  void prepare_metadata(const mla_prefill_metadata&) { ++prepared; }
  void run_prefill_new_tokens(const mla_new_tokens_args&) const {}
  void run_prefill_context_chunk(const mla_context_chunk_args&) const {}

  static int prepared;
};
int Counted::prepared = 0;

/// A layer of a registered backend finds out what fits in few rounds, also where its
/// results are larger than keys and values and smaller chunks save little.
void rounds_of_fitting_are_few() {
  mla::override_backend<Counted>("CUSTOM");
  const test::Model model{1, 1, 0, 16, 16};
  test::Array weights(MLA_DTYPE_FLOAT32, {17, 16});
  weights.each([&](std::int64_t i, std::int64_t j, std::int64_t) { weights.set(i, j, 0, 1); });
  const std::vector<std::int32_t> rows = test::offsets_of(std::vector<std::int32_t>(1000, 1050));
  const std::vector<std::int32_t> contexts(1000, 4000);
  mla_layer_config config = model.layer_config(weights.view());
  config.backend = "CUSTOM";
  config.dtype = config.cache_dtype = MLA_DTYPE_BFLOAT16;
  config.workspace_bound = 1;
  mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
  args.num_requests = 1000;
  args.query_start_loc = rows.data();
  args.context_lens = contexts.data();
  std::int64_t bytes = 0;
  CHECK(mla_layer_workspace_size(mla::layer(config).get(), &args, &bytes) != MLA_OK);
  const char* needed = std::strstr(mla_last_error_message(), "needs ");
  CHECK(needed != nullptr);
  config.workspace_bound = std::atoll(needed + 6) - 1;
  const mla::layer layer(config);
  Counted::prepared = 0;
  CHECK(mla_layer_workspace_size(layer.get(), &args, &bytes) == MLA_ERROR_INVALID_ARGUMENT);
  EXPECT(Counted::prepared < 200, "%d rounds", Counted::prepared);
  mla::check(mla_clear_override("CUSTOM"));
}

/// What the header promises: less than 2 KiB a request, whatever heads and tokens.
void planning_is_bounded() {
  const std::uint64_t beside = 8 << 20;
  for (std::int32_t threads : {2, 1024}) {
    mla::check(mla_set_num_threads(threads));
    const struct {
      test::Model model;
      std::int64_t requests, rows;
    } batches[] = {{{65536, 1, 0, 1, 1}, 256, 1 << 28}, {{8192, 1, 0, 1, 1}, 1, longest},
                   {{1024, 8, 0, 8, 8}, 16384, 1 << 30}, {{16, 8, 0, 8, 8}, most_requests, longest}};
    for (const auto& batch : batches) {
      const std::vector<std::int32_t> rows = offsets(batch.requests, batch.rows, Lengths::falling);
      mla::backend backend("CPU", batch.model.config(MLA_ISA_DEFAULT));
      const Layer layer(batch.model, MLA_LAYER_ALGORITHM_ABSORBED, 0, MLA_DTYPE_BFLOAT16);
      const std::vector<std::int32_t> no_context;
      std::int64_t bytes = 0;
      const test::LimitedAddressSpace limited(beside +
                                              2048 * static_cast<std::uint64_t>(batch.requests));
      backend.prepare_metadata(rows);
      mla::check(mla_workspace_size(backend.get(), &bytes));
      mla::check(layer.workspace_size(rows, no_context, &bytes));
    }
  }
  mla::check(mla_set_num_threads(0));
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv,
                   {{"batch limits requests", one_request_too_many},
                    {"batch limits backends", backends_at_their_bounds},
                    {"batch limits layers", layers_at_their_bounds},
                    {"batch limits rows without elements", rows_without_elements},
                    {"batch limits rounds of fitting", rounds_of_fitting_are_few},
                    {"batch limits memory of planning", planning_is_bounded}});
}
