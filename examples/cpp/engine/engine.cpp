// A tiny engine on the layer call: a paged cache with a block allocator, chunked
// prefill in steps of 512 tokens, prefix reuse, mixed batches, greedy decoding.
//
// Three prompts, two of which begin alike, are served together; then each alone,
// its prompt in one step and without a cache to share. Logits must agree, and so
// must the tokens that come out.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "decoder.hpp"

namespace {

using D = Dimensions;

class Engine {
 public:
  /// Most new tokens of a step, as an engine would bound them.
  Engine(std::int32_t num_blocks, std::int32_t block_size, std::int32_t step_tokens)
      : blocks_(num_blocks, block_size), step_tokens_(step_tokens) {
    std::mt19937 random(7);
    embedding_ = DecoderLayer::weights(D::vocabulary, D::model, random);
    head_ = DecoderLayer::weights(D::vocabulary, D::model, random);
    for (int i = 0; i < D::layers; ++i) layers_.emplace_back(num_blocks, block_size, random);
  }

  std::size_t add(Tokens prompt) {
    Request request;
    request.blocks = blocks_.reuse(prompt);
    request.cached = static_cast<std::int32_t>(request.blocks.size()) * blocks_.block_size();
    request.tokens = std::move(prompt);
    requests_.push_back(std::move(request));
    logits_.emplace_back();
    return requests_.size() - 1;
  }

  /// One step of every request: of its prompt, if any of that is left, else the
  /// next token.
  void step() {
    Step step;
    std::int32_t room = step_tokens_;
    std::vector<Request*> served;
    std::vector<std::int32_t> counts;
    for (Request& request : requests_) {
      const auto left = static_cast<std::int32_t>(request.tokens.size()) - request.cached;
      counts.push_back(std::min(left, room));
      room -= counts.back();
      served.push_back(&request);
    }
    for (std::size_t i = 0; i < served.size(); ++i) append(step, *served[i], counts[i]);
    fill_block_table(step);
    Matrix x;
    for (const std::int32_t token : step.tokens) {
      const auto row = embedding_.begin() + token * D::model;
      x.insert(x.end(), row, row + D::model);
    }
    for (DecoderLayer& layer : layers_) layer.forward(x, step);
    for (std::size_t i = 0; i < served.size(); ++i) finish(step, x, i, counts[i]);
  }

  const Request& request(std::size_t id) const { return requests_[id]; }
  /// Of the last token that a step has seen.
  const Matrix& logits(std::size_t id) const { return logits_[id]; }
  bool has_prompt_left() const {
    return std::any_of(requests_.begin(), requests_.end(), [](const Request& request) {
      return request.cached + 1 < static_cast<std::int32_t>(request.tokens.size());
    });
  }

  ~Engine() {
    for (const Request& request : requests_) blocks_.release(request.blocks);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

 private:
  void append(Step& step, Request& request, std::int32_t count) {
    step.context_lens.push_back(request.cached);
    step.query_start_loc.push_back(step.query_start_loc.back() + count);
    const std::int32_t size = blocks_.block_size();
    for (std::int32_t token = request.cached; token < request.cached + count; ++token) {
      if (token % size == 0) request.blocks.push_back(blocks_.take());
      step.tokens.push_back(request.tokens[static_cast<std::size_t>(token)]);
      step.positions.push_back(token);
      step.slots.push_back(request.slot(token, size));
    }
    step.max_blocks = std::max(step.max_blocks, static_cast<std::int32_t>(request.blocks.size()));
  }

  void fill_block_table(Step& step) const {
    for (const Request& request : requests_) {
      std::vector<std::int32_t> row = request.blocks;
      row.resize(static_cast<std::size_t>(step.max_blocks), -1);
      step.block_table.insert(step.block_table.end(), row.begin(), row.end());
    }
  }

  /// What a step has made of a request: cached tokens, and perhaps the next one.
  void finish(const Step& step, const Matrix& x, std::size_t i, std::int32_t count) {
    Request& request = requests_[i];
    const std::int32_t size = blocks_.block_size();
    for (std::int32_t end = (request.cached / size + 1) * size; end <= request.cached + count;
         end += size) {
      blocks_.filled(Tokens(request.tokens.begin(), request.tokens.begin() + end),
                     request.blocks[static_cast<std::size_t>(end / size - 1)]);
    }
    request.cached += count;
    if (count == 0 || request.cached < static_cast<std::int32_t>(request.tokens.size())) return;
    const auto end = x.begin() + std::ptrdiff_t{step.query_start_loc[i + 1]} * D::model;
    logits_[i] = linear(normed(Matrix(end - D::model, end), D::model), head_, D::model);
    const auto best = std::max_element(logits_[i].begin(), logits_[i].end());
    request.tokens.push_back(static_cast<std::int32_t>(best - logits_[i].begin()));
  }

  BlockAllocator blocks_;
  std::int32_t step_tokens_;
  Matrix embedding_, head_;
  std::vector<DecoderLayer> layers_;
  std::vector<Request> requests_;
  std::vector<Matrix> logits_;
};

Tokens random_tokens(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  Tokens made(count);
  for (std::int32_t& token : made) token = static_cast<std::int32_t>(random() % D::vocabulary);
  return made;
}

double relative_difference(const Matrix& a, const Matrix& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

constexpr int new_tokens = 6;

/// Serves a prompt by itself, in one step.
bool agrees_alone(const Engine& engine, std::size_t id, std::size_t prompt_length) {
  const Tokens& tokens = engine.request(id).tokens;
  Engine alone(200, 16, 1 << 20);
  // All but the last token, which the engine has made but not yet seen.
  const Tokens seen(tokens.begin(), tokens.end() - 1);
  alone.add(seen);
  alone.step();
  const double difference = relative_difference(engine.logits(id), alone.logits(0));
  const bool same_token = alone.request(0).tokens == tokens;
  std::printf("request %zu: prompt of %zu, then", id, prompt_length);
  for (std::size_t i = prompt_length; i < tokens.size(); ++i) std::printf(" %d", tokens[i]);
  std::printf("; logits differ by %.1e from an unchunked run\n", difference);
  return difference < 1e-4 && same_token;
}

}  // namespace

int main() {
  try {
    Engine engine(200, 16, 512);
    const Tokens first = random_tokens(1300, 1);
    engine.add(first);
    int steps = 0;
    for (; engine.has_prompt_left(); ++steps) engine.step();

    // The same beginning, another end; and one of its own.
    Tokens second(first.begin(), first.begin() + 1000);
    for (const std::int32_t token : random_tokens(90, 2)) second.push_back(token);
    const std::size_t lengths[] = {first.size(), second.size(), 70};
    engine.add(second);
    engine.add(random_tokens(70, 3));
    std::printf("prompt of %zu in %d steps; the next one finds %d of its %zu tokens cached\n",
                first.size(), steps, engine.request(1).cached, second.size());
    if (engine.request(1).cached != 992) return 1;
    for (int i = 0; i < new_tokens; ++i) engine.step();

    bool agrees = true;
    for (std::size_t id = 0; id < 3; ++id) agrees = agrees_alone(engine, id, lengths[id]) && agrees;
    return agrees ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
