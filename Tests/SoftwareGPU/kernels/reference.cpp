#include "reference.hpp"

#include <cmath>

static double dot(const double* a, const double* b, int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

static std::vector<double> head_of(const Tensor& tensor, int head, int first, int count) {
  std::vector<double> values;
  for (int row = first; row < first + count; ++row)
    for (int d = 0; d < tensor.dim; ++d) values.push_back(tensor.get(row, head, d));
  return values;
}

Results attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<Rows>& requests, double scale,
                  bool is_causal) {
  Results results;
  results.out.assign(static_cast<std::size_t>(q.rows) * q.heads * v.dim, NAN);
  results.lse.assign(static_cast<std::size_t>(q.rows) * q.heads, NAN);
  std::vector<double> scores;
  for (const Rows& request : requests)
    for (int head = 0; head < q.heads; ++head) {
      const std::vector<double> queries = head_of(q, head, request.query, request.queries);
      const std::vector<double> keys = head_of(k, head, request.key, request.keys);
      const std::vector<double> values = head_of(v, head, request.key, request.keys);
      for (int query = 0; query < request.queries; ++query) {
        const int behind = request.queries - 1 - query;
        const int seen = is_causal ? std::max(0, request.keys - behind) : request.keys;
        double* out = &results.out[(static_cast<std::size_t>(request.query + query) * q.heads + head) * v.dim];
        double largest = -INFINITY, sum = 0;
        scores.resize(seen);
        for (int key = 0; key < seen; ++key) {
          scores[key] = scale * dot(&queries[query * q.dim], &keys[key * q.dim], q.dim);
          largest = std::fmax(largest, scores[key]);
        }
        for (int d = 0; d < v.dim; ++d) out[d] = 0;
        for (int key = 0; key < seen; ++key) {
          const double weight = std::exp(scores[key] - largest);
          sum += weight;
          for (int d = 0; d < v.dim; ++d) out[d] += weight * values[key * v.dim + d];
        }
        if (sum != 0)
          for (int d = 0; d < v.dim; ++d) out[d] /= sum;
        results.lse[static_cast<std::size_t>(head) * q.rows + request.query + query] = largest + std::log(sum);
      }
    }
  return results;
}

double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::isnan(a[i]) || std::isnan(b[i])) return INFINITY;
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return error == 0 ? 0 : std::sqrt(error / size);
}

double largest_error(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double error = std::fabs(a[i] - b[i]);
    if (!(error <= largest)) largest = std::isnan(error) ? INFINITY : error;
  }
  return largest;
}
