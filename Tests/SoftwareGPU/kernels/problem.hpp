// Batches for the attention kernels: what is handed in, a launch, what comes out.
#pragma once

#include <memory>

#include "reference.hpp"

struct AttentionShape {
  Format format;
  int qk, v;
  /// By tensor maps, of sm_90a.
  bool is_by_tiles = false;

  std::string kernel() const;
  /// Of queries.
  int tile() const { return is_by_tiles ? +MLA_CUDA_WIDE_TILE : +MLA_CUDA_TILE_QUERIES; }
  /// That its inputs can have: maps take strides of 16 bytes alone.
  Layout of_input(Layout layout) const {
    return is_by_tiles && layout != Layout::dense ? Layout::apart : layout;
  }
};
/// One a kernel.
std::vector<AttentionShape> attention_shapes();

/// How scores are spread.
enum class Pattern { normal, rising, falling, shuffled, spike_last, spike_first };

struct Options {
  bool is_causal = true;
  bool wants_lse = true;
  Format out;
  float out_multiplier = 1;
  /// Of q, k, v and out.
  Layout layouts[4] = {Layout::dense, Layout::dense, Layout::dense, Layout::dense};
  std::uint64_t seed = 1;
  /// Whose arithmetic is the same in every launch; 0: none.
  std::uint64_t machine = 0;
};

struct Problem {
  AttentionShape shape;
  int heads;
  std::vector<Rows> requests;
  /// Rows of no request, before the first. Behind the last is what is nobody's.
  static constexpr int spare = 2;
  double scale = 0.07;
  Tensor q, k, v;

  /// Lengths: queries and keys of each request. Filled with noise of `deviation`.
  Problem(AttentionShape shape, int heads, const std::vector<std::pair<int, int>>& lengths, Random& random,
          const Layout (&layouts)[4]);

  void fill(Pattern pattern, double deviation, Random& random);
  int query_rows() const { return q.rows; }
  /// Those without queries have no tiles; hidden in the launch otherwise.
  mla_cuda_attention arguments(const Options& options) const;
  int tiles() const;
};

struct Outputs {
  Tensor out, lse;

  Outputs(const Problem& problem, const Options& options);
  std::vector<std::uint32_t> bits() const;
  std::vector<double> out_values() const, lse_values() const;
};

/// Throws what the machine says where it is refused.
std::unique_ptr<Outputs> run(const Problem& problem, const Options& options);
void launch(const std::string& kernel, int x, int y, int threads, int shared_bytes, const void* parameters,
            std::size_t bytes, std::uint64_t seed, std::uint64_t machine);
