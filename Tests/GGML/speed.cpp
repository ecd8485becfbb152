/* A whole model's tokens a second, on two threads.
 *
 *   speed deepseek2|llama TOKENS [libggml-mla.so]    a prompt of TOKENS, then 16 tokens one by one
 */
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "engine.hpp"

namespace {

using Clock = std::chrono::steady_clock;

/// The attention of models in use, on narrow layers: 16 heads on latents of 576, or on 4 heads of 64.
Metadata model(const std::string &name) {
  Metadata data(name, 3);
  if (name == "llama") {
    data.size(1024, 2048, 16, 4).set("rope.dimension_count", 64U);
    return data;
  }
  data.size(1024, 2048, 16, 1).experts().set("expert_shared_count", 1U).set("leading_dense_block_count", 3U);
  data.set("attention.q_lora_rank", 512U).set("attention.kv_lora_rank", 512U);
  data.set("attention.key_length", 576U).set("attention.value_length", 512U);
  data.set("attention.key_length_mla", 192U).set("attention.value_length_mla", 128U);
  data.set("rope.dimension_count", 64U);
  return data;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
  if (argc > 3 && !ggml_backend_load(argv[3])) return 2;
  const int tokens = std::atoi(argv[2]), steps = 16;
  Setting setting = {GGML_TYPE_F16, true, 0, 2048, 512, 1};
  setting.tokens = static_cast<uint32_t>(tokens + 64);
  Engine engine(model(argv[1]), setting);
  std::vector<int> positions = {0};
  std::vector<float> logits;
  if (!engine || !engine.decode({1}, positions, logits)) return 1;  // what is made once
  const auto start = Clock::now();
  for (int left = tokens; left > 0; left -= 2048) {
    if (!engine.decode({std::min(left, 2048)}, positions, logits)) return 1;
  }
  const auto middle = Clock::now();
  for (int i = 0; i < steps; ++i) {
    if (!engine.decode({1}, positions, logits)) return 1;
  }
  const std::chrono::duration<double> prompt = middle - start, decoding = Clock::now() - middle;
  std::printf("%.1f %.2f\n", tokens / prompt.count(), steps / decoding.count());
  return 0;
}
