/* A whole model's tokens a second on two threads, with the backend and without in turns.
 *
 *   speed deepseek2|llama TOKENS libggml-mla.so    prompts of TOKENS, then tokens one by one behind them
 */
#include <cstdlib>

#include "engine.hpp"
#include "turns.hpp"

namespace {

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

constexpr int ubatch = 512, batch = 2048, steps = 128;

/// An engine, and what it is measured in: tokens behind others.
class Runner {
 public:
  Runner(const std::string &name, int tokens) : tokens_(tokens), engine_(model(name), setting(tokens)) {}

  double prompt() {
    return behind(0, tokens_, [&] {
      for (int left = tokens_; left > 0; left -= batch) decode(std::min(left, batch));
    });
  }
  double one_by_one() {
    return behind(tokens_, steps, [&] {
      for (int i = 0; i < steps; ++i) decode(1);
    });
  }

 private:
  static Setting setting(int tokens) {
    return {GGML_TYPE_F16, true, static_cast<uint32_t>(tokens + steps), batch, ubatch, 1};
  }

  template <typename Work>
  double behind(int position, int count, const Work &work) {
    if (!engine_) std::exit(1);
    engine_.take_out(0, position, -1, false, positions_[0]);
    positions_[0] = position;
    return rate(count, work);
  }

  void decode(int count) {
    logits_.clear();
    if (!engine_.decode({count}, positions_, logits_)) std::exit(1);
  }

  int tokens_;
  Engine engine_;
  std::vector<int> positions_ = {0};
  std::vector<float> logits_;
};

}  // namespace

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
  const int tokens = std::atoi(argv[2]);
  Runner own(argv[1], tokens);
  if (!ggml_backend_load(argv[3])) return 2;
  Runner with(argv[1], tokens);
  Runner *const runners[] = {&own, &with};
  const std::string name = std::string(argv[1]) + ", " + argv[2];
  // Long ones take minutes, and are as good as warm.
  const bool is_long = tokens > 8192;
  for (Runner *runner : runners) {
    if (!is_long) runner->prompt();
  }
  in_turns(name + ", prompt", is_long ? 1 : 7, [&](int side) { return runners[side]->prompt(); });
  for (Runner *runner : runners) runner->one_by_one();
  in_turns(name + ", one by one", is_long ? 7 : 15, [&](int side) { return runners[side]->one_by_one(); });
  return 0;
}
