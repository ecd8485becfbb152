// A prompt whose tokens are spread over MPI's ranks, against one rank and double precision.
//
//   mpirun -n 4 context_parallel [tokens]
//
// SPDX-License-Identifier: Apache-2.0
#include "context_parallel.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace {

constexpr std::int64_t nope = 32;
constexpr Dimensions dims{4, nope + 16, 64, 16, 32};

/// The same on all ranks.
struct Prompt {
  std::vector<float> weights, q, latents;

  explicit Prompt(std::int64_t tokens)
      : weights(values(dims.heads * (nope + dims.v) * dims.rank, 1 / std::sqrt(64.0F), 1)),
        q(values(tokens * dims.heads * dims.qk, 1, 2)),
        latents(values(tokens * dims.width(), 1, 3)) {}

  static std::vector<float> values(std::int64_t count, float deviation, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> made(static_cast<std::size_t>(count));
    for (float& value : made) value = normal(random);
    return made;
  }

  /// A rank's rows.
  Rows rows(const Parts& parts, int rank) const {
    Rows rows;
    for (const int part : parts.of(rank)) {
      const auto copy = [&](const std::vector<float>& from, std::int64_t width, auto& to) {
        const auto first = from.begin() + parts.begin(part) * width;
        to.insert(to.end(), first, first + parts.size(part) * width);
      };
      copy(q, dims.heads * dims.qk, rows.q);
      copy(latents, dims.width(), rows.latents);
    }
    return rows;
  }
};

mla::layer make_layer(const Prompt& prompt) {
  const mla::tensor weights(const_cast<float*>(prompt.weights.data()),
                            {dims.heads * (nope + dims.v), dims.rank});
  mla_layer_config config = MLA_LAYER_CONFIG_INIT;
  config.num_heads = dims.heads, config.scale = 1 / std::sqrt(static_cast<double>(dims.qk));
  config.kv_lora_rank = dims.rank, config.qk_nope_head_dim = nope;
  config.qk_rope_head_dim = dims.rope, config.v_head_dim = dims.v;
  config.kv_b_proj = &weights;
  config.algorithm = MLA_LAYER_ALGORITHM_UP_PROJECTED;
  return mla::layer(config);
}

/// The largest difference of a row's output from double precision, for some of a rank's rows.
double error(const Prompt& prompt, const Parts& parts, int rank, const Rows& rows) {
  double largest = 0;
  const std::vector<int> own = parts.of(rank);
  for (std::size_t i = 0; i < own.size(); ++i) {
    for (std::int64_t j = parts.size(own[i]) - 1; j >= 0; j -= 37) {
      const std::int64_t token = parts.begin(own[i]) + j, row = parts.row(own[i]) + j;
      for (std::int64_t head = 0; head < dims.heads; ++head) {
        const float* query = &prompt.q[static_cast<std::size_t>((token * dims.heads + head) * dims.qk)];
        const float* w = &prompt.weights[static_cast<std::size_t>(head * (nope + dims.v) * dims.rank)];
        std::vector<double> sums(static_cast<std::size_t>(dims.v));
        double total = 0;
        for (std::int64_t key = 0; key <= token; ++key) {
          const float* latent = &prompt.latents[static_cast<std::size_t>(key * dims.width())];
          const auto up = [&](std::int64_t d) {
            double sum = 0;
            for (std::int64_t r = 0; r < dims.rank; ++r) sum += double{w[d * dims.rank + r]} * latent[r];
            return sum;
          };
          double score = 0;
          for (std::int64_t d = 0; d < nope; ++d) score += query[d] * up(d);
          for (std::int64_t d = 0; d < dims.rope; ++d) score += double{query[nope + d]} * latent[dims.rank + d];
          const double weight = std::exp(score / std::sqrt(static_cast<double>(dims.qk)));
          total += weight;
          for (std::int64_t d = 0; d < dims.v; ++d) sums[static_cast<std::size_t>(d)] += weight * up(nope + d);
        }
        for (std::int64_t d = 0; d < dims.v; ++d) {
          const float out = rows.out[static_cast<std::size_t>((row * dims.heads + head) * dims.v + d)];
          largest = std::max(largest, std::abs(out - sums[static_cast<std::size_t>(d)] / total));
        }
      }
    }
  }
  return largest;
}

int run(int argc, char** argv) {
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const Parts parts{argc > 1 ? std::atoi(argv[1]) : 500, ranks, 64};
  const Prompt prompt(parts.tokens);
  const mla::layer layer = make_layer(prompt);

  Rows rows = prompt.rows(parts, rank);
  ContextParallel(layer, dims, parts, MPI_COMM_WORLD).forward(rows);

  // All of the prompt on this rank alone, whose rows are in the prompt's order.
  const Parts whole{parts.tokens, 1, parts.part_tokens};
  Rows alone = prompt.rows(whole, 0);
  ContextParallel(layer, dims, whole, MPI_COMM_SELF).forward(alone);
  bool same = true;
  const std::int64_t width = dims.heads * dims.v;
  for (const int part : parts.of(rank)) {
    const auto first = rows.out.begin() + parts.row(part) * width;
    same &= std::equal(first, first + parts.size(part) * width,
                       alone.out.begin() + parts.begin(part) * width);
  }
  const double off = error(prompt, parts, rank, rows);
  std::printf("rank %d of %d: %d tokens, off by %.1e, %s one rank's\n", rank, ranks,
              parts.offsets(rank).back(), off, same ? "bits are" : "BITS ARE NOT");
  return same && off < 1e-4 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
  int status = 1;
  try {
    if (provided < MPI_THREAD_SERIALIZED) throw std::runtime_error("MPI has no threads");
    status = run(argc, argv);
  } catch (const std::exception& e) {
    // The other ranks wait for this one.
    std::fprintf(stderr, "%s\n", e.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return status;
}
