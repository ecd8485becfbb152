#include "problem.hpp"

#include <SoftwareGPU.hpp>
#include <cmath>
#include <cstring>
#include <stdexcept>

std::string AttentionShape::kernel() const {
  return std::string(is_by_tiles ? "mla_attend_tiles_" : "mla_attend_") + name_of(format) + "_" + std::to_string(qk) + "_" + std::to_string(v);
}

using Facts = std::vector<mla_cuda_attention_kernel>;

static Facts facts(bool is_by_tiles) {
  int count = 0;
  const mla_cuda_attention_kernel* all =
      is_by_tiles ? mla_cuda_attention_tile_kernels(&count) : mla_cuda_attention_kernels(&count);
  return Facts(all, all + count);
}

static mla_cuda_attention_kernel facts_of(const AttentionShape& shape) {
  for (const mla_cuda_attention_kernel& each : facts(shape.is_by_tiles))
    if (shape.kernel() == each.name) return each;
  throw std::runtime_error("no kernel " + shape.kernel());
}

std::vector<AttentionShape> attention_shapes() {
  std::vector<AttentionShape> shapes;
  for (const bool is_by_tiles : {false, true})
    for (const mla_cuda_attention_kernel& each : facts(is_by_tiles))
      shapes.push_back({each.dtype == 2 ? Format::fp16 : Format::bf16, each.qk_head_dim, each.v_head_dim, is_by_tiles});
  return shapes;
}

static int sum_of(const std::vector<std::pair<int, int>>& lengths, int std::pair<int, int>::* member) {
  int sum = Problem::spare;
  for (const auto& length : lengths) sum += length.*member;
  return sum;
}

Problem::Problem(AttentionShape shape, int heads, const std::vector<std::pair<int, int>>& lengths, Random& random,
                 const Layout (&layouts)[4])
    : shape(shape),
      heads(heads),
      q(shape.format, sum_of(lengths, &std::pair<int, int>::first), heads, shape.qk, shape.of_input(layouts[0])),
      k(shape.format, sum_of(lengths, &std::pair<int, int>::second), heads, shape.qk, shape.of_input(layouts[1])),
      v(shape.format, sum_of(lengths, &std::pair<int, int>::second), heads, shape.v, shape.of_input(layouts[2])) {
  int query = spare, key = spare;
  for (const auto& length : lengths) {
    requests.push_back({query, length.first, key, length.second});
    query += length.first;
    key += length.second;
  }
  fill(Pattern::normal, 1, random);
}

/// Where a key lies in the direction in which all queries look, from -1 to 1.
static double place(Pattern pattern, int key, int keys, Random& random) {
  const double fraction = keys > 1 ? static_cast<double>(key) / (keys - 1) : 0;
  switch (pattern) {
    case Pattern::rising: return 2 * fraction - 1;
    case Pattern::falling: return 1 - 2 * fraction;
    case Pattern::spike_last: return key == keys - 1 ? 1 : -1;
    case Pattern::spike_first: return key == 0 ? 1 : -1;
    default: return 2 * random.uniform() - 1;
  }
}

/// Scores of that deviation, or between -80 and 80. Rows of no request stay poisoned.
void Problem::fill(Pattern pattern, double deviation, Random& random) {
  const bool is_normal = pattern == Pattern::normal;
  scale = (is_normal ? deviation / std::sqrt(shape.qk) : 76.0 / shape.qk);
  const auto noise = [&](Tensor& tensor, int row, double size, double mean) {
    for (int head = 0; head < heads; ++head)
      for (int d = 0; d < tensor.dim; ++d) tensor.set(row, head, d, mean + size * random.normal());
  };
  for (const Rows& request : requests) {
    for (int i = 0; i < request.queries; ++i) noise(q, request.query + i, is_normal ? 1 : 0.02, is_normal ? 0 : 1);
    for (int i = 0; i < request.keys; ++i) {
      noise(k, request.key + i, is_normal ? 1 : 0.02, is_normal ? 0 : place(pattern, i, request.keys, random));
      noise(v, request.key + i, 1, 0);
    }
  }
}

mla_cuda_attention Problem::arguments(const Options& options) const {
  mla_cuda_attention a = {};
  a.q = q.view(), a.k = k.view(), a.v = v.view();
  a.scale_log2 = static_cast<float>(scale * 1.4426950408889634);
  a.out_multiplier = options.out_multiplier;
  a.out_type = dtype_of(options.out);
  a.is_causal = options.is_causal;
  int tiles = 0;
  for (const Rows& request : requests) {
    if (a.request_count == MLA_CUDA_LAUNCH_REQUESTS) throw std::runtime_error("too many requests");
    a.requests[a.request_count++] = {tiles, request.query, request.queries, request.key, request.keys};
    tiles += (request.queries + shape.tile() - 1) / shape.tile();
  }
  return a;
}

int Problem::tiles() const {
  int tiles = 0;
  for (const Rows& request : requests) tiles += (request.queries + shape.tile() - 1) / shape.tile();
  return tiles;
}

static mla_cuda_tensor_map map_of(const Tensor& tensor) {
  const mla_cuda_rows rows = tensor.view();
  const SoftwareGPU::TiledTensor tiled = {rows.data, 3, {tensor.dim, tensor.heads, tensor.rows},
                                          {rows.head_stride * 2, rows.token_stride * 2}, {64, 1, MLA_CUDA_WIDE_TILE}};
  TensorMap map;
  if (!SoftwareGPU::encode_tensor_map(map, tiled)) throw std::runtime_error("no tensor map");
  mla_cuda_tensor_map same;
  std::memcpy(&same, &map, sizeof map);
  return same;
}

Outputs::Outputs(const Problem& problem, const Options& options)
    : out(options.out, problem.q.rows, problem.heads, problem.shape.v, options.layouts[3]),
      lse(Format::fp32, problem.heads, 1, problem.q.rows, Layout::odd) {}

std::vector<std::uint32_t> Outputs::bits() const {
  std::vector<std::uint32_t> all = out.bits();
  for (std::uint32_t bits : lse.bits()) all.push_back(bits);
  return all;
}

std::vector<double> Outputs::out_values() const {
  std::vector<double> all;
  for (std::uint32_t bits : out.bits()) all.push_back(value_of(out.format, bits));
  return all;
}

std::vector<double> Outputs::lse_values() const {
  std::vector<double> all;
  for (std::uint32_t bits : lse.bits()) all.push_back(value_of(Format::fp32, bits));
  return all;
}

void launch(const std::string& name, int x, int y, int threads, int shared_bytes, const void* parameters,
            std::size_t bytes, std::uint64_t seed, std::uint64_t machine) {
  const SoftwareGPU::Kernel* kernel = SoftwareGPU::find(name.c_str());
  if (!kernel) throw std::runtime_error("no kernel " + name);
  using SoftwareGPU::Arrival;
  const Arrival arrivals[] = {Arrival::early, Arrival::late, Arrival::random};
  SoftwareGPU::Options options;
  options.seed = seed;
  options.machine = machine;
  options.arrival = arrivals[seed % 3];
  const SoftwareGPU::Result result =
      SoftwareGPU::launch(*kernel, {x, y, 1}, threads, shared_bytes, parameters, bytes, options);
  if (!result.ok()) throw std::runtime_error(result.text);
}

std::unique_ptr<Outputs> run(const Problem& problem, const Options& options) {
  auto outputs = std::make_unique<Outputs>(problem, options);
  mla_cuda_attention a = problem.arguments(options);
  a.out = outputs->out.view();
  const mla_cuda_rows lse = outputs->lse.view();
  a.lse = {options.wants_lse ? static_cast<float*>(lse.data) : nullptr, lse.token_stride};
  const mla_cuda_attention_kernel facts = facts_of(problem.shape);
  const int tiles = problem.tiles();
  const auto launch_with = [&](const void* parameters, std::size_t bytes) {
    if (tiles > 0)
      launch(facts.name, tiles, problem.heads, facts.threads, facts.shared_bytes, parameters, bytes, options.seed,
             options.machine);
  };
  if (problem.shape.is_by_tiles) {
    const mla_cuda_attention_tiles by_tiles = {map_of(problem.q), map_of(problem.k), map_of(problem.v), a};
    launch_with(&by_tiles, sizeof by_tiles);
  } else {
    launch_with(&a, sizeof a);
  }
  return outputs;
}
