// mla_layer_forward of one prompt whose tokens are spread over MPI's ranks.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <stdexcept>
#include <vector>

#include "mla_prefill.hpp"
#include "parts.hpp"
#include "ring.hpp"

/// What a layer's rows are as wide as.
struct Dimensions {
  std::int64_t heads, qk, rank, rope, v;
  std::int64_t width() const { return rank + rope; }
};

/// One rank's rows of a prompt: q [rows, heads, qk], latents [rows, rank + rope] in, out
/// [rows, heads, v] and lse [heads, rows] back.
struct Rows {
  std::vector<float> q, latents, out, lse;
};

/// Attention of this rank's rows to the whole prompt; all ranks call it. Latents travel while
/// the rank attends to those that it has; a part is attended to in one call, and results merge
/// in the prompt's order: a row has the same bits for any number of ranks, if the layer's
/// algorithm is MLA_LAYER_ALGORITHM_UP_PROJECTED.
class ContextParallel {
 public:
  ContextParallel(const mla::layer& layer, Dimensions dims, Parts parts, MPI_Comm comm)
      : layer_(layer), dims_(dims), parts_(parts), comm_(comm) {
    MPI_Comm_rank(comm, &rank_);
    // Each term twice: the least of them is the same with either sign only where all agree.
    long long terms[] = {parts.tokens, -parts.tokens, parts.part_tokens, -parts.part_tokens};
    MPI_Allreduce(MPI_IN_PLACE, terms, 4, MPI_LONG_LONG, MPI_MIN, comm);
    if (terms[0] != -terms[1]) throw std::invalid_argument("tokens: must be the same on all ranks");
    if (terms[2] != -terms[3]) {
      throw std::invalid_argument("part_tokens: must be the same on all ranks");
    }
    own_ = parts.of(rank_);
    offsets_ = parts.offsets(rank_);
  }

  void forward(Rows& rows) {
    const auto count = static_cast<std::size_t>(offsets_.back());
    const auto heads = static_cast<std::size_t>(dims_.heads);
    const auto row = heads * static_cast<std::size_t>(dims_.v);
    rows.out.resize(count * row), rows.lse.resize(heads * count);
    std::vector<float> part_out(rows.out.size()), part_lse(rows.lse.size());
    std::vector<std::vector<float>> latents(static_cast<std::size_t>(parts_.ranks));
    std::vector<std::vector<Ring::Block>> rounds(static_cast<std::size_t>(parts_.rounds()));
    const auto round_size = static_cast<std::size_t>(2 * parts_.part_tokens * dims_.width());
    for (int rank = 0; rank < parts_.ranks; ++rank) {
      auto& all = latents[static_cast<std::size_t>(rank)];
      all.resize(static_cast<std::size_t>(parts_.offsets(rank).back() * dims_.width()));
      if (rank == rank_) all = rows.latents;
      for (std::size_t round = 0; round < rounds.size(); ++round) {
        const std::size_t begin = std::min(round * round_size, all.size());
        rounds[round].push_back({all.data() + begin, std::min(round_size, all.size() - begin)});
      }
    }
    Ring ring(std::move(rounds), comm_);
    attend_to_own(rows);
    for (int part = 0; part < parts_.count(); ++part) {
      const int owner = parts_.owner(part);
      ring.wait(parts_.round(part), owner);
      float* keys = latents[static_cast<std::size_t>(owner)].data() +
                    parts_.row(part) * dims_.width();
      attend_to(part, keys, rows, part_out, part_lse);
    }
  }

 private:
  /// The own parts, each to itself: requests of one batch.
  void attend_to_own(Rows& rows) const {
    const std::int64_t count = offsets_.back();
    const mla::tensor q(rows.q.data(), {count, dims_.heads, dims_.qk});
    const mla::tensor kv_c(rows.latents.data(), {count, dims_.rank}, {dims_.width(), 1});
    const mla::tensor k_pe(rows.latents.data() + dims_.rank, {count, dims_.rope},
                           {dims_.width(), 1});
    const mla::tensor out(rows.out.data(), {count, dims_.heads, dims_.v});
    const mla::tensor lse(rows.lse.data(), {dims_.heads, count});
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.num_requests = static_cast<std::int32_t>(own_.size());
    args.query_start_loc = offsets_.data();
    args.q = &q, args.kv_c_normed = &kv_c, args.k_pe = &k_pe;
    args.out = &out, args.lse = &lse;
    layer_.forward(args);
  }

  /// What of the rank's rows lies behind a part, to all of it.
  void attend_to(int part, float* keys, Rows& rows, std::vector<float>& part_out,
                 std::vector<float>& part_lse) const {
    const auto later = std::upper_bound(own_.begin(), own_.end(), part);
    if (later == own_.end()) return;
    const std::int64_t begin = offsets_[static_cast<std::size_t>(later - own_.begin())];
    const std::int64_t all = offsets_.back(), count = all - begin;
    const std::int32_t starts[] = {0, static_cast<std::int32_t>(count)};
    const std::int32_t context_len = parts_.size(part);
    const auto outputs = [&](std::vector<float>& values) {
      return mla::tensor(values.data() + begin * dims_.heads * dims_.v,
                         {count, dims_.heads, dims_.v});
    };
    const auto sums = [&](std::vector<float>& values) {
      return mla::tensor(values.data() + begin, {dims_.heads, count}, {all, 1});
    };
    const mla::tensor q(rows.q.data() + begin * dims_.heads * dims_.qk,
                        {count, dims_.heads, dims_.qk});
    const mla::tensor cache(keys, {1, context_len, dims_.width()});
    const mla::tensor out = outputs(part_out), lse = sums(part_lse);
    mla_layer_forward_args args = MLA_LAYER_FORWARD_ARGS_INIT;
    args.flags = MLA_LAYER_CONTEXT_ONLY;
    args.num_requests = 1;
    args.query_start_loc = starts, args.context_lens = &context_len;
    args.q = &q, args.kv_cache = &cache, args.out = &out, args.lse = &lse;
    layer_.forward(args);
    const mla::tensor merged = outputs(rows.out), merged_lse = sums(rows.lse);
    mla::merge_attn_states(merged, &merged_lse, out, lse, merged, merged_lse);
  }

  const mla::layer& layer_;
  Dimensions dims_;
  Parts parts_;
  MPI_Comm comm_;
  int rank_ = 0;
  std::vector<int> own_;
  std::vector<std::int32_t> offsets_;
};
