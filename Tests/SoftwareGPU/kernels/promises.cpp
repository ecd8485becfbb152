// What include/mla_prefill.h promises of attention beside its numbers: which rows depend on
// what, to the bit; numbers that are not finite; scales; rows without keys; far strides.
#include <SoftwareGPU.hpp>
#include <cmath>
#include <cstring>

#include "problem.hpp"
#include "report.hpp"

namespace {

constexpr Layout all_dense[4] = {Layout::dense, Layout::dense, Layout::dense, Layout::dense};

/// On one machine, so that bits can be compared.
Options plain(const AttentionShape& shape, bool is_causal = true) {
  Options options;
  options.is_causal = is_causal;
  options.out = shape.format;
  options.machine = 7;
  return options;
}

/// Kernels of each format and of small dimensions, unless a test is about all of them.
constexpr AttentionShape small_shapes[] = {{Format::bf16, 128, 64},
                                           {Format::fp16, 128, 64},
                                           {Format::bf16, 128, 128, true},
                                           {Format::fp16, 128, 128, true}};

std::string what(const AttentionShape& shape, const std::string& text) { return shape.kernel() + ": " + text; }

double out_of(const Outputs& outputs, const Problem& problem, int query, int d, int head = 0) {
  return outputs.out.get(problem.requests[0].query + query, head, d);
}
double lse_of(const Outputs& outputs, const Problem& problem, int query, int head = 0) {
  return outputs.lse.get(head, 0, problem.requests[0].query + query);
}
std::vector<std::uint32_t> row_bits(const Outputs& outputs, const Problem& problem, int query) {
  const int row = problem.requests[0].query + query;
  std::vector<std::uint32_t> bits = outputs.out.bits(row, 1);
  for (int head = 0; head < problem.heads; ++head) bits.push_back(outputs.lse.bits(head, 0, row));
  return bits;
}

/// A request has the bits that it has alone, wherever it lies in a batch and in memory.
void same_bits_in_any_batch() {
  for (const AttentionShape& shape : attention_shapes()) {
    Report report(what(shape, "a request's bits are its own"));
    Random random(11);
    const std::vector<std::pair<int, int>> lengths = {{5, 9}, {0, 3}, {70, 131}, {1, 1}, {64, 64}, {0, 0}};
    for (Layout layout : layouts) {
      Options options = plain(shape);
      for (Layout& each : options.layouts) each = layout;
      Problem batch(shape, 2, lengths, random, options.layouts);
      options.seed = random.next();
      const auto together = run(batch, options);
      for (std::size_t i = 0; i < lengths.size(); ++i) {
        Problem alone(shape, 2, {lengths[i]}, random, all_dense);
        alone.scale = batch.scale;
        const Rows &from = batch.requests[i], &to = alone.requests[0];
        alone.q.copy(batch.q, from.query, to.query, from.queries);
        alone.k.copy(batch.k, from.key, to.key, from.keys);
        alone.v.copy(batch.v, from.key, to.key, from.keys);
        options.seed = random.next();
        Options dense = options;
        std::memcpy(dense.layouts, all_dense, sizeof all_dense);
        const auto single = run(alone, dense);
        report.expect(single->out.bits(to.query, to.queries) == together->out.bits(from.query, from.queries), "out");
        for (int head = 0; head < 2; ++head)
          for (int query = 0; query < from.queries; ++query)
            report.expect(single->lse.bits(head, 0, to.query + query) ==
                              together->lse.bits(head, 0, from.query + query), "lse");
      }
    }
  }
}

/// Results do not depend on which others are asked for.
void same_bits_beside_others() {
  for (const AttentionShape& shape : small_shapes) {
    Report report(what(shape, "out has its bits without lse, lse beside fp8"));
    Random random(12);
    const Problem problem(shape, 2, {{70, 131}, {3, 3}}, random, all_dense);
    Options options = plain(shape);
    const auto both = run(problem, options);
    options.wants_lse = false;
    report.expect(run(problem, options)->out.bits() == both->out.bits(), "out");
    options.wants_lse = true, options.out = Format::fp8;
    report.expect(run(problem, options)->lse.bits() == both->lse.bits(), "lse");
  }
}

/// As many as a launch takes, the most of them empty, in any order.
void many_requests() {
  for (const AttentionShape& shape : small_shapes) {
    Report report(what(shape, "128 requests"));
    for (int seed = 0; seed < 3; ++seed) {
      Random random(13 + seed);
      std::vector<std::pair<int, int>> lengths;
      for (int i = 0; i < MLA_CUDA_LAUNCH_REQUESTS; ++i) {
        const int queries = random.chance(0.6) ? 0 : random.chance(0.9) ? random.between(1, 3) : random.between(60, 70);
        lengths.push_back({queries, queries + random.between(0, 2)});
      }
      const Problem problem(shape, 1, lengths, random, all_dense);
      const auto outputs = run(problem, plain(shape));
      const Results exact = attention(problem.q, problem.k, problem.v, problem.requests, problem.scale, true);
      report.expect_at_most(relative_error(outputs->out_values(), exact.out), 4e-3, "out");
      report.expect_at_most(largest_error(outputs->lse_values(), exact.lse), 2e-4, "lse");
    }
  }
}

/// What a row does not see may hold anything, in its own block of keys too.
void hidden_keys() {
  for (const AttentionShape& shape : attention_shapes()) {
    Report report(what(shape, "hidden keys are without effect, to the bit"));
    for (int changed : {3, 70, 129}) {
      Random random(17);
      Problem problem(shape, 1, {{130, 150}}, random, all_dense);
      const Rows& rows = problem.requests[0];
      const Options options = plain(shape);
      const auto before = run(problem, options);
      const double bad[] = {NAN, INFINITY, -INFINITY, 1e4};
      for (int key = changed; key < rows.keys; ++key)
        for (int d = 0; d < shape.qk; ++d) problem.k.set(rows.key + key, 0, d, random.pick(bad));
      for (int key = changed; key < rows.keys; ++key)
        for (int d = 0; d < shape.v; ++d) problem.v.set(rows.key + key, 0, d, random.pick(bad));
      const auto after = run(problem, options);
      for (int query = 0; query < rows.queries; ++query) {
        const int last_seen = query + rows.keys - rows.queries;
        if (last_seen < changed)
          report.expect(row_bits(*before, problem, query) == row_bits(*after, problem, query),
                        "from key " + std::to_string(changed) + " on: row " + std::to_string(query));
      }
    }
  }
}

/// In the dimension in which it is, of the rows that see it: in the block where some do not,
/// at its ends, and in one that all see.
void values_that_are_not_finite() {
  for (const AttentionShape& shape : attention_shapes()) {
    Report report(what(shape, "a value that is not finite shows in its dimension alone"));
    for (int key : {0, 19, 20, 63, 64, 100, 149}) {
      Random random(19);
      Problem problem(shape, 1, {{130, 150}}, random, all_dense);
      const Rows& rows = problem.requests[0];
      problem.scale = 0.01;
      const auto before = run(problem, plain(shape));
      // Of pairs of elements the second alone, or others, too.
      const int at[] = {key % 2 ? 0 : 1, 9, 17, shape.v - 1};
      const double values[] = {INFINITY, -INFINITY, NAN, INFINITY};
      for (int i = 0; i < 4; ++i) problem.v.set(rows.key + key, 0, at[i], values[i]);
      const auto after = run(problem, plain(shape));
      for (int query = 0; query < rows.queries; ++query) {
        const bool sees = key <= query + rows.keys - rows.queries;
        const std::string where = "key " + std::to_string(key) + ", row " + std::to_string(query);
        for (int d = 0; d < shape.v; ++d) {
          const double value = out_of(*after, problem, query, d);
          const bool is_there = sees && (d == at[0] || d == at[1] || d == at[2] || d == at[3]);
          if (is_there)
            report.expect(!std::isfinite(value) && (d != at[1] || !(value > 0)) && (d != at[0] || !(value < 0)),
                          where + ": is finite");
          else
            report.expect(value == out_of(*before, problem, query, d), where + ": another number");
        }
        report.expect(lse_of(*after, problem, query) == lse_of(*before, problem, query), where + ": lse");
      }
    }
  }
}

/// NaN and +inf make NaN of the row; -inf has weight 0; a row of no others has no keys.
void scores_that_are_not_finite() {
  for (const AttentionShape& shape : small_shapes) {
    Report report(what(shape, "scores that are not finite"));
    for (double scale : {0.1, -0.1})
      for (double score : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
        Random random(23);
        Problem problem(shape, 1, {{3, 100}}, random, all_dense);
        problem.scale = scale;
        const Rows& rows = problem.requests[0];
        const auto before = run(problem, plain(shape, false));
        // Row 1 alone has no 0 there.
        for (int i = 0; i < 3; ++i) problem.q.set(rows.query + i, 0, 0, i == 1 ? 1 : 0);
        for (int key : {5, 80}) {
          for (int d = 0; d < shape.qk; ++d) problem.k.set(rows.key + key, 0, d, 0);
          problem.k.set(rows.key + key, 0, 0, score * scale * 10);
        }
        const auto after = run(problem, plain(shape, false));
        const double out = out_of(*after, problem, 1, 3), lse = lse_of(*after, problem, 1);
        const bool has_weight = score != -INFINITY;
        report.expect(has_weight ? std::isnan(out) && std::isnan(lse) : std::isfinite(out) && std::isfinite(lse),
                      "of " + std::to_string(score) + " times " + std::to_string(scale));
        // 0 * inf is NaN by itself.
        report.expect(std::isnan(lse_of(*after, problem, 0)), "a product of 0 and infinity");
        report.expect(std::isfinite(lse_of(*before, problem, 1)), "before");
      }
    Random random(29);
    Problem problem(shape, 1, {{2, 70}}, random, all_dense);
    const Rows& rows = problem.requests[0];
    for (int key = 0; key < rows.keys; ++key) problem.k.set(rows.key + key, 0, 0, -INFINITY);
    for (int i = 0; i < 2; ++i) problem.q.set(rows.query + i, 0, 0, i == 0 ? 1 : -1);
    problem.v.set(rows.key + 69, 0, 3, INFINITY);
    for (bool is_causal : {true, false}) {
      const auto outputs = run(problem, plain(shape, is_causal));
      for (int d = 0; d < shape.v; ++d) report.expect(out_of(*outputs, problem, 0, d) == 0, "-inf alone: out");
      report.expect(lse_of(*outputs, problem, 0) == -INFINITY, "-inf alone: lse");
      report.expect(std::isnan(lse_of(*outputs, problem, 1)), "+inf alone: lse");
    }
  }
}

/// 0: all keys weigh the same. Below 0: the lowest product wins. Large and small ones.
void scales() {
  for (const AttentionShape& shape : small_shapes) {
    Report report(what(shape, "any finite scale"));
    for (double scale : {0.0, -0.1, -30.0, 1e-30, 1.0, 200.0}) {
      Random random(31);
      Problem problem(shape, 1, {{70, 100}}, random, all_dense);
      problem.scale = scale;
      const auto outputs = run(problem, plain(shape));
      const Results exact = attention(problem.q, problem.k, problem.v, problem.requests, scale, true);
      // fp32 products of large scores round differences off.
      const double slack = std::fmax(1, std::fabs(scale) * 4);
      const std::string text = "scale " + std::to_string(scale);
      report.expect_at_most(relative_error(outputs->out_values(), exact.out), 4e-3 * slack, text + ": out");
      report.expect_at_most(largest_error(outputs->lse_values(), exact.lse), 2e-4 * slack, text + ": lse");
    }
    // Scores that count as infinite: beyond fp32 with either sign.
    Random random(37);
    Problem problem(shape, 1, {{2, 10}}, random, all_dense);
    const Rows& rows = problem.requests[0];
    problem.scale = 1e37;
    for (int i = 0; i < 2; ++i)
      for (int d = 0; d < shape.qk; ++d) problem.q.set(rows.query + i, 0, d, i == 0 ? 8 : -8);
    for (int key = 0; key < rows.keys; ++key)
      for (int d = 0; d < shape.qk; ++d) problem.k.set(rows.key + key, 0, d, -1);
    const auto outputs = run(problem, plain(shape));
    report.expect(lse_of(*outputs, problem, 0) == -INFINITY && out_of(*outputs, problem, 0, 0) == 0, "-inf by scale");
    report.expect(std::isnan(lse_of(*outputs, problem, 1)) && std::isnan(out_of(*outputs, problem, 1, 0)),
                  "+inf by scale");
  }
}

/// 0 and -inf, also where causal rows see nothing, and in fp8.
void rows_without_keys() {
  for (const AttentionShape& shape : attention_shapes()) {
    Report report(what(shape, "rows without keys are 0 and -inf"));
    for (Format out : {shape.format, Format::fp8})
      for (bool is_causal : {true, false}) {
        Random random(41);
        const Problem problem(shape, 1, {{70, 0}, {3, 0}, {80, is_causal ? 10 : 0}}, random, all_dense);
        Options options = plain(shape, is_causal);
        options.out = out;
        const auto outputs = run(problem, options);
        for (const Rows& request : problem.requests)
          for (int query = 0; query < request.queries - request.keys; ++query) {
            for (int d = 0; d < shape.v; ++d)
              report.expect(outputs->out.bits(request.query + query, 0, d) == 0, "out");
            report.expect(outputs->lse.get(0, 0, request.query + query) == -INFINITY, "lse");
          }
      }
  }
}

/// Many weights of a 2^-20th each, beside one of 1: together they are a part that counts.
void small_weights() {
  for (const AttentionShape& shape : small_shapes) {
    Report report(what(shape, "many small weights beside a large one"));
    Random random(43);
    const int keys = 4096;
    Problem problem(shape, 1, {{1, keys}}, random, all_dense);
    const Rows& rows = problem.requests[0];
    for (int d = 0; d < shape.qk; ++d) problem.q.set(rows.query, 0, d, d == 0);
    for (int key = 0; key < keys; ++key) {
      problem.k.set(rows.key + key, 0, 0, key == 100 ? 0 : -17);
      for (int d = 0; d < shape.v; ++d) problem.v.set(rows.key + key, 0, d, key == 100 ? 0 : 1000);
    }
    problem.scale = 1;
    const auto outputs = run(problem, plain(shape));
    const Results exact = attention(problem.q, problem.k, problem.v, problem.requests, problem.scale, true);
    report.expect_at_most(relative_error(outputs->out_values(), exact.out), 4e-3, "out");
    // Of 1.7e-4 in all.
    report.expect_at_most(largest_error(outputs->lse_values(), exact.lse), 1e-5, "lse");
  }
}

/// Rows and heads more than 2^31 elements apart, of which no page but their own exists.
void far_strides() {
  const AttentionShape shape = {Format::bf16, 128, 64};
  Report report(what(shape, "strides beyond 32 bits"));
  Random random(47);
  const Problem near(shape, 2, {{3, 5}}, random, all_dense);
  const Options options = plain(shape);
  const auto expected = run(near, options);
  const long long token = 1ll << 30, head = 1ll << 33;
  const int spare = Problem::spare;
  for (int which = 0; which < 4; ++which) {
    mla_cuda_attention a = near.arguments(options);
    const Tensor* tensors[] = {&near.q, &near.k, &near.v, &expected->out};
    const Tensor& same = *tensors[which];
    Tensor far(shape.format, same.rows, 2, same.dim, token, head);
    if (which < 3) far.copy(same, spare, spare, same.rows - spare);
    Outputs outputs(near, options);
    a.out = which == 3 ? far.view() : outputs.out.view();
    (which == 0 ? a.q : which == 1 ? a.k : which == 2 ? a.v : a.out) = far.view();
    const mla_cuda_rows lse = outputs.lse.view();
    a.lse = {static_cast<float*>(lse.data), lse.token_stride};
    launch(shape.kernel(), 1, 2, 128, MLA_CUDA_TILE_QUERIES * (2 * 128 + 64) * 2, &a, sizeof a, 1, options.machine);
    const Tensor& out = which == 3 ? far : outputs.out;
    report.expect(out.bits(spare, 3) == expected->out.bits(spare, 3), "tensor " + std::to_string(which));
  }
}

}  // namespace

int main() {
  return Report::run([&] {
    same_bits_in_any_batch();
    same_bits_beside_others();
    many_requests();
    hidden_keys();
    values_that_are_not_finite();
    scores_that_are_not_finite();
    scales();
    rows_without_keys();
    small_weights();
    far_strides();
  });
}
