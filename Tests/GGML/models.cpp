/* Tiny models of random numbers, whole, in llama.cpp: with the backend as without.
 *
 *   models libggml-mla.so [ARCHITECTURE]
 *
 * Each scenario is run before the backend is loaded and after: prompts of two sequences in
 * one batch, tokens taken out and the rest moved up, more of one sequence, then both by
 * a token at a time.
 */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine.hpp"

namespace {

std::mutex log_mutex;
std::string log_text;

/// Errors are shown, the backend's lines kept.
void listen(ggml_log_level level, const char *text, void *) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
  if (std::strncmp(text, "mla: ", 5) != 0) return;
  const std::lock_guard<std::mutex> hold(log_mutex);
  log_text += text;
}

std::map<std::string, std::function<Metadata()>> architectures() {
  return {
      {"llama", [] { return std::move(Metadata("llama").size(256, 128, 8, 2).set("rope.dimension_count", 32U)); }},
      {"qwen3", [] { return std::move(Metadata("qwen3").size(256, 128, 4, 1)); }},
      {"gemma3", [] {
         Metadata data("gemma3", 7);  // each sixth is without a window
         data.size(256, 128, 4, 2).set("attention.sliding_window", 24U);
         return std::move(data.set("attention.key_length", 64U).set("attention.value_length", 64U));
       }},
      {"gpt-oss", [] {
         Metadata data("gpt-oss");
         return std::move(data.size(256, 128, 4, 2).set("attention.sliding_window", 24U).experts());
       }},
      {"deepseek2", [] {
         Metadata data("deepseek2");
         data.size(128, 128, 4, 1).experts().set("expert_shared_count", 1U).set("leading_dense_block_count", 2U);
         data.set("attention.q_lora_rank", 64U).set("attention.kv_lora_rank", 512U);
         data.set("attention.key_length", 576U).set("attention.value_length", 512U);
         data.set("attention.key_length_mla", 192U).set("attention.value_length_mla", 128U);
         return std::move(data.set("rope.dimension_count", 64U));
       }}};
}

/// What the backend has said since.
std::string take_log() {
  const std::lock_guard<std::mutex> hold(log_mutex);
  return std::exchange(log_text, {});
}

/// All logits of the scenario; empty where something failed.
std::vector<float> logits_of(const Metadata &metadata, const Setting &setting) {
  Engine engine(metadata, setting);
  std::vector<float> logits;
  std::vector<int> positions = {0, 0};
  if (!engine || !engine.decode({90, 61}, positions, logits)) return {};
  // ggml's CPU backend cannot turn what is of another type.
  const bool turns = setting.cache == GGML_TYPE_F32 || setting.cache == GGML_TYPE_F16;
  engine.take_out(0, 10, 21, turns, positions[0]);
  if (!engine.decode({35, 0}, positions, logits)) return {};
  for (int step = 0; step < 6; ++step) {
    if (!engine.decode({1, 1}, positions, logits)) return {};
  }
  return logits;
}

/// 64 greedy tokens after a prompt.
std::vector<llama_token> greedy(const Metadata &metadata) {
  Engine engine(metadata, {GGML_TYPE_F32, true});
  std::vector<float> logits;
  std::vector<int> positions = {0};
  std::vector<llama_token> tokens;
  if (!engine || !engine.decode({100}, positions, logits)) return {};
  while (tokens.size() < 64) {
    tokens.push_back(static_cast<llama_token>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits.clear();
    if (!engine.decode_tokens({{tokens.back()}}, positions, logits)) return {};
  }
  return tokens;
}

struct Case {
  std::string name;
  Metadata metadata;
  Setting setting;
};

std::vector<Case> cases(const std::map<std::string, std::function<Metadata()>> &wanted) {
  std::vector<Case> all;
  for (const auto &[name, make] : wanted) {
    all.push_back({name + ", fp32 cache", make(), {GGML_TYPE_F32, true}});
    all.push_back({name + ", fp16 cache, a stream each", make(), {GGML_TYPE_F16, false}});
    all.push_back({name + ", bf16 cache", make(), {GGML_TYPE_BF16, true}});
    all.push_back({name + ", q8_0 cache", make(), {GGML_TYPE_Q8_0, true}});
    all.push_back({name + ", q4_0 cache, a stream each", make(), {GGML_TYPE_Q4_0, false}});
  }
  return all;
}

int failures = 0;

void report(bool good, const std::string &what, const std::string &why) {
  std::printf("%s %s: %s\n", good ? "ok" : "not ok", what.c_str(), why.c_str());
  failures += good ? 0 : 1;
}

/// The largest difference, over the largest number.
double difference(const std::vector<float> &a, const std::vector<float> &b) {
  if (a.size() != b.size() || a.empty()) return INFINITY;
  double largest = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    largest = d <= largest ? largest : std::isnan(d) ? INFINITY : d;
    size = std::max(size, std::fabs(static_cast<double>(a[i])));
  }
  return largest / size;
}

/// Contexts of each model on two threads, one with a prompt when the other decodes.
void two_at_once(const std::vector<Case> &all, const std::vector<std::vector<float>> &expected) {
  double off[2] = {};
  std::thread threads[2];
  for (size_t t = 0; t < 2; ++t) {
    threads[t] = std::thread([&, t] {
      for (size_t i = t; i < all.size(); i += 2) {
        off[t] = std::max(off[t], difference(expected[i], logits_of(all[i].metadata, all[i].setting)));
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  const double most = std::max(off[0], off[1]);
  report(most <= 2e-2, "contexts on two threads", "off by " + std::to_string(most));
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  auto wanted = architectures();
  if (argc > 2) wanted = {{argv[2], wanted.at(argv[2])}};
  setenv("MLA_VERBOSE", "1", 1);
  llama_log_set(listen, nullptr);
  if (ggml_backend_dev_count() == 0) ggml_backend_load_all();
  const std::vector<Case> all = cases(wanted);
  std::vector<std::vector<float>> expected;
  std::map<std::string, std::vector<llama_token>> tokens;
  for (const Case &it : all) expected.push_back(logits_of(it.metadata, it.setting));
  for (const auto &[name, make] : wanted) tokens[name] = greedy(make());

  if (!ggml_backend_load(argv[1])) return 2;
  for (size_t i = 0; i < all.size(); ++i) {
    take_log();
    const double off = difference(expected[i], logits_of(all[i].metadata, all[i].setting));
    const double most = all[i].setting.cache == GGML_TYPE_F32 ? 5e-3 : 2e-2;
    const std::string log = take_log();
    // Sequences that share cells soon have masks of another kind.
    const bool left = log.find("left to") != std::string::npos && !all[i].setting.unified;
    const bool served = log.find(" served") != std::string::npos && !left;
    report(off <= most && served, all[i].name, "off by " + std::to_string(off) + (served ? "" : ", " + log));
  }
  two_at_once(all, expected);
  for (const auto &[name, make] : wanted) {
    report(!tokens[name].empty() && greedy(make()) == tokens[name], name, "64 greedy tokens");
  }
  return failures ? 1 : 0;
}
