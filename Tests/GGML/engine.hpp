/* Models of random numbers that llama.cpp makes in memory, and contexts of theirs. */
#ifndef MLA_TESTS_GGML_ENGINE_HPP
#define MLA_TESTS_GGML_ENGINE_HPP

#include <ggml-backend.h>
#include <gguf.h>
#include <llama.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

inline constexpr uint32_t vocabulary = 96;

/// Metadata of a model, under its architecture's name.
class Metadata {
 public:
  explicit Metadata(const std::string &name, uint32_t layers = 2) : name_(name), raw_(gguf_init_empty(), gguf_free) {
    gguf_set_val_str(raw_.get(), "general.architecture", name.c_str());
    set("vocab_size", vocabulary).set("context_length", 65536U).set("block_count", layers);
    set("attention.layer_norm_rms_epsilon", 1e-5F);
    gguf_set_val_str(raw_.get(), "tokenizer.ggml.model", "no_vocab");
  }
  Metadata &set(const std::string &key, uint32_t value) {
    gguf_set_val_u32(raw_.get(), (name_ + "." + key).c_str(), value);
    return *this;
  }
  Metadata &set(const std::string &key, float value) {
    gguf_set_val_f32(raw_.get(), (name_ + "." + key).c_str(), value);
    return *this;
  }
  Metadata &size(uint32_t embedding, uint32_t feed_forward, uint32_t heads, uint32_t kv_heads) {
    set("embedding_length", embedding).set("feed_forward_length", feed_forward);
    return set("attention.head_count", heads).set("attention.head_count_kv", kv_heads);
  }
  Metadata &experts() {
    return set("expert_count", 2U).set("expert_used_count", 1U).set("expert_feed_forward_length", 64U);
  }
  gguf_context *raw() const { return raw_.get(); }

 private:
  std::string name_;
  std::unique_ptr<gguf_context, void (*)(gguf_context *)> raw_;
};

inline void random_weights(ggml_tensor *tensor, void *) {
  std::mt19937_64 random(std::hash<std::string>()(tensor->name));
  std::normal_distribution<float> normal(0, 0.1F);
  std::vector<float> numbers(static_cast<size_t>(ggml_nelements(tensor)));
  const bool is_norm = std::strstr(tensor->name, "norm") != nullptr;
  for (float &number : numbers) number = (is_norm ? 1.0F : 0.0F) + normal(random);
  ggml_backend_tensor_set(tensor, numbers.data(), 0, ggml_nbytes(tensor));
}

struct Setting {
  ggml_type cache;
  bool unified;
  uint32_t tokens = 1024, batch = 256, ubatch = 64, sequences = 2;
};

/// A model and a context.
class Engine {
 public:
  Engine(const Metadata &metadata, const Setting &setting) {
    llama_model_params of_model = llama_model_default_params();
    of_model.n_gpu_layers = 0;
    model_.reset(llama_model_init_from_user(metadata.raw(), random_weights, nullptr, of_model));
    if (!model_) return;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = setting.tokens, params.n_batch = setting.batch, params.n_ubatch = setting.ubatch;
    params.n_seq_max = setting.sequences;
    params.n_threads = params.n_threads_batch = 2;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = params.type_v = setting.cache;
    params.kv_unified = setting.unified;
    context_.reset(llama_init_from_model(model_.get(), params));
  }
  explicit operator bool() const { return context_ != nullptr; }

  /// Tokens of sequences, of each from position `from` on; appends the last one's logits of each.
  bool decode(const std::vector<int> &counts, std::vector<int> &positions, std::vector<float> &logits) {
    std::vector<std::vector<llama_token>> tokens(counts.size());
    for (size_t s = 0; s < counts.size(); ++s) {
      for (int i = 0; i < counts[s]; ++i) {
        tokens[s].push_back((positions[s] + i) * 31 % 89 + static_cast<int>(s));
      }
    }
    return decode_tokens(tokens, positions, logits);
  }

  bool decode_tokens(const std::vector<std::vector<llama_token>> &tokens, std::vector<int> &positions,
                     std::vector<float> &logits) {
    llama_batch batch = llama_batch_init(static_cast<int32_t>(llama_n_batch(context_.get())), 0, 1);
    std::vector<int> last;
    for (size_t s = 0; s < tokens.size(); ++s) {
      for (const llama_token &token : tokens[s]) {
        const int at = batch.n_tokens++;
        batch.token[at] = token, batch.pos[at] = positions[s]++;
        batch.n_seq_id[at] = 1, batch.seq_id[at][0] = static_cast<llama_seq_id>(s);
        batch.logits[at] = &token == &tokens[s].back();
        if (batch.logits[at]) last.push_back(at);
      }
    }
    const bool good = llama_decode(context_.get(), batch) == 0;
    for (const int at : last) {
      const float *from = good ? llama_get_logits_ith(context_.get(), at) : nullptr;
      if (from) logits.insert(logits.end(), from, from + vocabulary);
    }
    llama_batch_free(batch);
    return good;
  }

  /// Takes tokens [begin, end) out of a sequence; `shift` moves those behind up where the cache can.
  void take_out(llama_seq_id sequence, int begin, int end, bool shift, int &position) {
    llama_memory_t memory = llama_get_memory(context_.get());
    if (!llama_memory_seq_rm(memory, sequence, begin, end) || !shift || !llama_memory_can_shift(memory)) return;
    llama_memory_seq_add(memory, sequence, end, -1, begin - end);
    position -= end - begin;
  }

 private:
  std::unique_ptr<llama_model, void (*)(llama_model *)> model_{nullptr, llama_model_free};
  std::unique_ptr<llama_context, void (*)(llama_context *)> context_{nullptr, llama_free};
};

#endif
