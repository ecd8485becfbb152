/* A tiny llama of random numbers as a file, with a token for each character of ASCII.
 *
 *   file MODEL.gguf
 */
#include <cstdio>

#include "engine.hpp"

namespace {

Metadata with_characters() {
  Metadata data("llama");
  data.size(256, 128, 8, 2).set("rope.dimension_count", 32U);
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  // Unknown, control, control; the others are bytes.
  std::vector<int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 128; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    tokens.emplace_back(name);
    types.push_back(6);
  }
  const std::vector<float> scores(tokens.size(), 0);
  std::vector<const char *> names;
  for (const std::string &token : tokens) names.push_back(token.c_str());
  gguf_set_val_str(data.raw(), "tokenizer.ggml.model", "llama");
  gguf_set_arr_str(data.raw(), "tokenizer.ggml.tokens", names.data(), names.size());
  gguf_set_arr_data(data.raw(), "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
  gguf_set_arr_data(data.raw(), "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
  data.set("vocab_size", static_cast<uint32_t>(tokens.size()));
  return data;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const Metadata data = with_characters();
  llama_model *model = llama_model_init_from_user(data.raw(), random_weights, nullptr, llama_model_default_params());
  if (!model) return 1;
  llama_model_save_to_file(model, argv[1]);
  llama_model_free(model);
}
