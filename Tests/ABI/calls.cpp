// What the library tells of calls and counts of them: every entry, what carried it out, failures,
// calls within calls, several threads, and nothing at all unless it is asked.
//
// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <thread>

#include "gathering.hpp"
#include "indexing.hpp"
#include "layer_request.hpp"
#include "one_call/problem.hpp"
#include "support.hpp"

namespace {

test::Model small() { return {2, 16, 8, 16, 32}; }

struct Counts {
  std::int64_t calls = 0, failures = 0, tokens = 0, nanoseconds = 0;
};

/// Of those pairs that have calls.
std::map<std::string, Counts> counts() {
  std::map<std::string, Counts> found;
  for (std::int32_t i = 0; i < mla_stats_size(); ++i) {
    mla_call_stats stats = MLA_CALL_STATS_INIT;
    mla::check(mla_get_stats(i, &stats));
    CHECK(stats.struct_size == sizeof stats && stats.reserved == 0);
    if (stats.calls == 0) continue;
    const std::string key = std::string(stats.entry) + " " + stats.kernel;
    CHECK(found.count(key) == 0);
    found[key] = {stats.calls, stats.failures, stats.tokens, stats.nanoseconds};
  }
  return found;
}

/// Lines of one thread, or of several.
struct Listener {
  explicit Listener(std::int32_t level) { mla::check(mla_set_verbose(level, &hear, this)); }
  ~Listener() { mla_set_verbose(0, nullptr, nullptr); }
  Listener(const Listener&) = delete;

  static void hear(void* self, std::int32_t level, const char* line) {
    auto& listener = *static_cast<Listener*>(self);
    const std::lock_guard<std::mutex> lock(listener.mutex);
    listener.lines.push_back(level == MLA_LOG_INFO ? line : "of another level");
  }
  std::vector<std::vector<std::string>> calls() const {
    std::vector<std::vector<std::string>> found;
    for (const std::string& line : lines) {
      std::vector<std::string> fields{""};
      for (const char c : line) {
        if (c == ',') fields.emplace_back();
        else fields.back().push_back(c);
      }
      if (fields.size() > 1 && fields[1] == "call") found.push_back(fields);
    }
    return found;
  }

  std::mutex mutex;
  std::vector<std::string> lines;
};

std::string table_of(std::int32_t dtype) {
  const mla_cpu_info info = test::cpu_info();
  return mla_isa_name(dtype == MLA_DTYPE_BFLOAT16  ? info.bf16_isa
                      : dtype == MLA_DTYPE_FLOAT16 ? info.fp16_isa
                                                   : info.fp32_isa);
}

/// The indexer has no kernels of its own for tiles and for BFMMLA.
std::string index_table() {
  const std::int32_t isa = test::cpu_info().bf16_isa;
  return mla_isa_name(isa == MLA_ISA_AMX         ? MLA_ISA_AVX512
                      : isa == MLA_ISA_NEON_BF16 ? MLA_ISA_NEON
                                                 : isa);
}

/// A call of each entry that is counted.
void call_all() {
  const test::Model model = small();
  auto tokens = test::Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {5, 3}, 1);
  mla::backend backend("CPU", model.config());
  tokens.run(backend);
  auto context = test::Attention::context(model, MLA_DTYPE_FLOAT32, {4}, {9}, 2);
  context.run(backend);

  mla_merge_args merge = MLA_MERGE_ARGS_INIT;
  test::Array merged(MLA_DTYPE_FLOAT32, {4, model.heads, model.v});
  merge.output = &merged.view();
  merge.prefix_output = &context.out.view(), merge.prefix_lse = &context.lse.view();
  merge.suffix_output = &context.out.view(), merge.suffix_lse = &context.lse.view();
  mla::check(mla_merge_attn_states(&merge));

  std::mt19937 random(7);
  test::Array latents(MLA_DTYPE_FLOAT32, {6, 32}), k_pe(MLA_DTYPE_FLOAT32, {6, 8});
  test::Array cache(MLA_DTYPE_FLOAT32, {2, 8, 40});
  latents.fill(random), k_pe.fill(random);
  const auto slots = test::numbered<std::int64_t>(6);
  mla_concat_and_cache_args fill = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  fill.kv_c_normed = &latents.view(), fill.k_pe = &k_pe.view(), fill.kv_cache = &cache.view();
  fill.slot_mapping = slots.data(), fill.num_slots = 6;
  mla::check(mla_concat_and_cache_mla(&fill));

  test::GatherShape shape{};
  shape.dtype = shape.cached = MLA_DTYPE_FLOAT32;
  shape.rank = 32, shape.rope = 8, shape.block_size = 16;
  test::GatherProblem gathering(shape, {4, 3}, 5);
  const mla_gather_cache_args gather = gathering.args();
  mla::check(mla_gather_and_maybe_dequant_cache(&gather));

  test::Array weights(MLA_DTYPE_FLOAT32, {2 * (16 + 16), 32}), q(MLA_DTYPE_FLOAT32, {2, 2, 24});
  test::Array out(MLA_DTYPE_FLOAT32, {2, 2, 16});
  weights.fill(random), q.fill(random);
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  config.num_heads = 2, config.scale = 0.2, config.kv_lora_rank = 32;
  config.qk_nope_head_dim = 16, config.qk_rope_head_dim = 8, config.v_head_dim = 16;
  config.dtype = MLA_DTYPE_FLOAT32, config.kv_b_proj = &weights.view();
  config.algorithm = MLA_LAYER_ALGORITHM_ABSORBED;
  mla::layer layer(config);
  const mla::tensor new_latents = latents.view().narrow(0, 4, 6), new_k_pe = k_pe.view().narrow(0, 4, 6);
  test::LayerRequest request(q, new_latents, &new_k_pe, cache, 4, out);
  layer.forward(request.args);

  test::OneCallShape one_shape;
  one_shape.dtype = MLA_DTYPE_FLOAT16;
  test::OneCall one(one_shape, 3, {{0, 0, 7, 0, 7}}, 1, 7, 7, random);
  one.run();

  test::Array index_keys(MLA_DTYPE_FLOAT32, {6, 8}), index_cache(MLA_DTYPE_FLOAT32, {2, 8, 8});
  index_keys.fill(random);
  mla_index_store_args store = MLA_INDEX_STORE_ARGS_INIT;
  store.k = &index_keys.view(), store.index_cache = &index_cache.view();
  store.slot_mapping = slots.data(), store.num_slots = 6;
  mla::check(mla_index_store(&store));
  const test::IndexShape index_shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 4, 16, 8, 3};
  const test::IndexProblem indexing(index_shape, {{9, 2}}, 1);
  const mla_index_select_args index = indexing.args();
  mla::check(mla_index_select(&index));
}

void every_entry_is_counted() {
  mla_reset_stats();
  CHECK(counts().empty());
  call_all();
  const std::string bf16 = table_of(MLA_DTYPE_BFLOAT16), fp16 = table_of(MLA_DTYPE_FLOAT16),
                    fp32 = table_of(MLA_DTYPE_FLOAT32);
  const std::map<std::string, std::int64_t> expected{
      {"mla_run_prefill_new_tokens " + bf16, 8}, {"mla_run_prefill_context_chunk " + fp32, 4},
      {"mla_merge_attn_states " + fp32, 4},      {"mla_concat_and_cache_mla " + fp32, 6},
      {"mla_gather_and_maybe_dequant_cache " + fp32, 8},  // a row of nobody's among them
      {"mla_layer_forward " + fp32, 2},          {"mla_attention " + fp16, 7},
      {"mla_index_store " + fp32, 6},            {"mla_index_select " + index_table(), 3}};
  const auto found = counts();
  CHECK(found.size() == expected.size());
  for (const auto& [key, tokens] : expected) {
    EXPECT(found.count(key) == 1, "nothing of %s", key.c_str());
    const Counts& all = found.at(key);
    EXPECT(all.calls == 1 && all.failures == 0 && all.tokens == tokens && all.nanoseconds > 0,
           "%s: %d calls, %d failures, %d tokens", key.c_str(), static_cast<int>(all.calls),
           static_cast<int>(all.failures), static_cast<int>(all.tokens));
  }
  mla_reset_stats();
  CHECK(counts().empty());
}

void every_entry_is_told_of() {
  Listener listener(1);
  call_all();
  const auto calls = listener.calls();
  CHECK(calls.size() == 9 && listener.lines.size() == 9);
  const std::vector<std::vector<std::string>> expected{
      {"mla_run_prefill_new_tokens", "CPU", "cpu", "bf16", "requests:2 tokens:8 keys:8 heads:2 qk:24 v:16", "-"},
      {"mla_run_prefill_context_chunk", "CPU", "cpu", "fp32", "requests:1 tokens:4 keys:9 heads:2 qk:24 v:16", "-"},
      {"mla_merge_attn_states", "-", "cpu", "fp32", "tokens:4 heads:2 v:16", "-"},
      {"mla_concat_and_cache_mla", "-", "cpu", "fp32", "tokens:6", "-"},
      {"mla_gather_and_maybe_dequant_cache", "-", "cpu", "fp32", "tokens:8", "-"},
      {"mla_layer_forward", "", "cpu", "fp32", "requests:1 tokens:2 heads:2 qk:24 v:16", "absorbed"},
      {"mla_attention", "-", "cpu", "fp16", "requests:1 tokens:7 heads:1 qk:16 v:16", "by_head"},
      {"mla_index_store", "-", "cpu", "fp32", "tokens:6", "-"},
      {"mla_index_select", "-", "cpu", "bf16", "requests:1 tokens:3 heads:4 qk:16", "-"}};
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const auto& call = calls[i];
    CHECK(call.size() == 12 && call[0] == "mla_verbose");
    CHECK(call[2] == expected[i][0]);
    // Whichever the selector takes on this host.
    CHECK(call[3] == expected[i][1] || (expected[i][1].empty() && call[3].find("CPU") != std::string::npos));
    CHECK(call[4] == expected[i][2] && call[5] == expected[i][3]);
    EXPECT(call[6] == expected[i][4], "%s: %s", call[2].c_str(), call[6].c_str());
    CHECK(call[7] == (call[2] == "mla_index_select" ? index_table()
                      : table_of(call[5] == "bf16"   ? MLA_DTYPE_BFLOAT16
                                 : call[5] == "fp16" ? MLA_DTYPE_FLOAT16
                                                     : MLA_DTYPE_FLOAT32)));
    EXPECT(call[8] == expected[i][5], "%s: %s", call[2].c_str(), call[8].c_str());
    CHECK(std::stoi(call[9]) >= 1 && std::stoi(call[9]) <= mla_get_num_threads());
    CHECK(std::stod(call[10]) > 0 && call[10].find('.') == call[10].size() - 2);
    CHECK(call[11] == "ok");
  }
}

void failures_are_told_of() {
  mla_reset_stats();
  Listener listener(1);
  mla::backend backend("CPU", small().config());
  CHECK(mla_run_prefill_new_tokens(backend.get(), nullptr) == MLA_ERROR_INVALID_ARGUMENT);
  const auto calls = listener.calls();
  CHECK(calls.size() == 1 && calls[0][7] == "none" && calls[0][11] == "status 1");
  const auto found = counts();
  CHECK(found.size() == 1);
  const Counts& all = found.at("mla_run_prefill_new_tokens none");
  CHECK(all.calls == 1 && all.failures == 1 && all.tokens == 0);
}

void decisions_are_told_of() {
  Listener listener(2);
  const test::Model model = small();
  auto tokens = test::Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {5, 3}, 1);
  mla::backend backend("CPU", model.config());
  tokens.run(backend);
  CHECK(listener.calls().size() == 1 && listener.lines.size() >= 2);
  CHECK(listener.lines[0].rfind("mla_verbose,plan,", 0) == 0);
}

/// A registered backend that calls the library's own for its run.
struct Within {
  static mla_status create(void*, const mla_backend_config* config, void** instance) {
    mla_backend* inner = nullptr;
    const mla_status status = mla_backend_create("FLASH_ATTN", config, &inner);
    *instance = inner;
    return status;
  }
  static void destroy(void*, void* instance) { mla_backend_destroy(static_cast<mla_backend*>(instance)); }
  static mla_status prepare(void*, void* instance, const mla_prefill_metadata* metadata) {
    return mla_prepare_metadata(static_cast<mla_backend*>(instance), metadata);
  }
  static mla_status new_tokens(void*, void* instance, const mla_new_tokens_args* args) {
    // Of which nothing is known, whatever is of the call around it.
    CHECK(mla_run_prefill_new_tokens(static_cast<mla_backend*>(instance), nullptr) == MLA_ERROR_INVALID_ARGUMENT);
    return mla_run_prefill_new_tokens(static_cast<mla_backend*>(instance), args);
  }
  static mla_status chunk(void*, void* instance, const mla_context_chunk_args* args) {
    return mla_run_prefill_context_chunk(static_cast<mla_backend*>(instance), args);
  }
};

void calls_within_calls() {
  static const mla_backend_vtable vtable = [] {
    mla_backend_vtable made = MLA_BACKEND_VTABLE_INIT;
    made.create = Within::create, made.destroy = Within::destroy;
    made.prepare_metadata = Within::prepare;
    made.run_prefill_new_tokens = Within::new_tokens;
    made.run_prefill_context_chunk = Within::chunk;
    return made;
  }();
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  registration.vtable = &vtable;
  mla::check(mla_register_backend("WITHIN", &registration));
  mla_reset_stats();
  {
    Listener listener(1);
    auto tokens = test::Attention::new_tokens(small(), MLA_DTYPE_BFLOAT16, {5}, 1);
    mla::backend backend("WITHIN", tokens.model.config());
    tokens.run(backend);
    const auto calls = listener.calls();
    CHECK(calls.size() == 3);
    CHECK(calls[0][3] == "-" && calls[0][6] == "-" && calls[0][7] == "none");
    CHECK(calls[1][3] == "FLASH_ATTN" && calls[1][7] == table_of(MLA_DTYPE_BFLOAT16));
    CHECK(calls[2].size() == 12 && calls[2][3] == "WITHIN" && calls[2][7] == "registered");
    CHECK(calls[2][6] == "requests:1 tokens:5 keys:5 heads:2 qk:24 v:16");
  }
  CHECK(counts().at("mla_run_prefill_new_tokens registered").tokens == 5);
  CHECK(counts().at("mla_run_prefill_new_tokens " + table_of(MLA_DTYPE_BFLOAT16)).tokens == 5);
  mla::check(mla_remove_backend("WITHIN"));
}

void threads_are_counted() {
  mla_reset_stats();
  constexpr int threads = 4, calls = 200;
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    running.emplace_back([i] {
      auto tokens = test::Attention::new_tokens(small(), MLA_DTYPE_BFLOAT16, {i + 1}, 1);
      mla::backend backend("CPU", tokens.model.config());
      for (int call = 0; call < calls; ++call) tokens.run(backend);
    });
  }
  for (std::thread& thread : running) thread.join();
  const Counts all = counts().at("mla_run_prefill_new_tokens " + table_of(MLA_DTYPE_BFLOAT16));
  CHECK(all.calls == threads * calls && all.tokens == (1 + 2 + 3 + 4) * calls);
}

/// What a program with that environment writes to standard error while it makes one call.
std::string standard_error(const char* verbose, const char* how = "once") {
  int ends[2];
  CHECK(pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO), close(ends[0]), close(ends[1]);
    verbose == nullptr ? unsetenv("MLA_VERBOSE") : setenv("MLA_VERBOSE", verbose, 1);
    execl("/proc/self/exe", "calls", how, nullptr);
    _exit(99);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  return text;
}

void call_once() {
  auto tokens = test::Attention::new_tokens(small(), MLA_DTYPE_BFLOAT16, {5}, 1);
  mla::backend backend("CPU", tokens.model.config());
  tokens.run(backend);
}

void environment() {
  for (const char* silent : {static_cast<const char*>(nullptr), "0", "", "yes", "11"}) {
    CHECK(standard_error(silent).empty());
  }
  // What a callback has had is not said a second time.
  CHECK(standard_error("1", "heard").empty());
  const std::string one = standard_error("1"), two = standard_error("2");
  CHECK(one.rfind("mla_verbose,call,mla_run_prefill_new_tokens,CPU,", 0) == 0);
  CHECK(one.find('\n') == one.size() - 1);
  CHECK(two.find("mla_verbose,plan,") != std::string::npos && two.find("mla_verbose,call,") != std::string::npos);
}

void bad_arguments() {
  for (const std::int32_t level : {-1, 3, INT32_MIN, INT32_MAX}) {
    CHECK(mla_set_verbose(level, nullptr, nullptr) == MLA_ERROR_INVALID_ARGUMENT);
    CHECK(std::strstr(mla_last_error_message(), "level = ") != nullptr);
  }
  mla_call_stats stats = MLA_CALL_STATS_INIT;
  for (const std::int32_t index : {-1, mla_stats_size(), INT32_MIN, INT32_MAX}) {
    CHECK(mla_get_stats(index, &stats) == MLA_ERROR_INVALID_ARGUMENT && stats.entry == nullptr);
  }
  CHECK(mla_get_stats(0, nullptr) == MLA_ERROR_INVALID_ARGUMENT);
  stats.struct_size = 8;
  CHECK(mla_get_stats(0, &stats) == MLA_ERROR_INVALID_ARGUMENT && stats.entry == nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "once") == 0) {
    call_once();
    return 0;
  }
  if (argc == 2 && std::strcmp(argv[1], "heard") == 0) {
    const Listener listener(1);
    call_once();
    return listener.calls().size() == 1 ? 0 : 1;
  }
  return test::run(argc, argv,
                   {{"calls every entry is counted", every_entry_is_counted},
                    {"calls every entry is told of", every_entry_is_told_of},
                    {"calls failures", failures_are_told_of},
                    {"calls decisions", decisions_are_told_of},
                    {"calls within calls", calls_within_calls},
                    {"calls of several threads", threads_are_counted},
                    {"calls environment", environment},
                    {"calls bad arguments", bad_arguments}});
}
