#include "problem.hpp"

#include <algorithm>
#include <cstring>

namespace {

constexpr float hidden = -std::numeric_limits<float>::infinity();

float uniform(std::mt19937_64 &random) { return std::uniform_real_distribution<float>(-1, 1)(random); }

int64_t below(std::mt19937_64 &random, int64_t count) {
  return std::uniform_int_distribution<int64_t>(0, count - 1)(random);
}

/// [dim, rows, heads, streams], with room for other rows between streams.
ggml_tensor *cache(ggml_context *context, ggml_type type, int64_t dim, const Shape &shape) {
  const int64_t room = shape.keys + 3;
  if (!shape.interleaved) {
    ggml_tensor *whole = ggml_new_tensor_4d(context, type, dim, room, shape.kv_heads, shape.streams);
    return ggml_view_4d(context, whole, dim, shape.keys, shape.kv_heads, shape.streams, whole->nb[1], whole->nb[2],
                        whole->nb[3], 0);
  }
  ggml_tensor *whole = ggml_new_tensor_4d(context, type, dim, shape.kv_heads, room, shape.streams);
  return ggml_view_4d(context, whole, dim, shape.keys, shape.kv_heads, shape.streams, whole->nb[2], whole->nb[1],
                      whole->nb[3], 0);
}

const char *row_of(const ggml_tensor *t, int64_t row, int64_t head, int64_t stream) {
  return static_cast<const char *>(t->data) + static_cast<size_t>(row) * t->nb[1] +
         static_cast<size_t>(head) * t->nb[2] + static_cast<size_t>(stream) * t->nb[3];
}

std::vector<float> floats(const ggml_tensor *t, int64_t row, int64_t head, int64_t stream) {
  std::vector<float> result(static_cast<size_t>(t->ne[0]));
  const char *from = row_of(t, row, head, stream);
  if (t->type == GGML_TYPE_F32) {
    std::memcpy(result.data(), from, result.size() * sizeof(float));
  } else {
    ggml_get_type_traits(t->type)->to_float(from, result.data(), t->ne[0]);
  }
  return result;
}

}  // namespace

Shape random_shape(Mask mask, std::mt19937_64 &random) {
  using Types = std::pair<ggml_type, ggml_type>;
  Shape shape;
  shape.mask = mask;
  const Types types = any_of<Types>(
      random, {{GGML_TYPE_F16, GGML_TYPE_F16}, {GGML_TYPE_F16, GGML_TYPE_F16}, {GGML_TYPE_F32, GGML_TYPE_F32},
               {GGML_TYPE_BF16, GGML_TYPE_BF16}, {GGML_TYPE_Q8_0, GGML_TYPE_Q8_0}, {GGML_TYPE_Q4_0, GGML_TYPE_Q4_0},
               {GGML_TYPE_Q8_0, GGML_TYPE_Q5_1}, {GGML_TYPE_F16, GGML_TYPE_F32}});
  shape.k = types.first, shape.v = types.second;
  const bool blocks = ggml_is_quantized(shape.k);
  shape.dim = blocks ? 32 * any_of<int64_t>(random, {1, 2, 3, 18}) : any_of<int64_t>(random, {1, 40, 64, 65, 128, 576});
  shape.v_dim = blocks ? 32 * any_of<int64_t>(random, {1, 2, 4, 16}) : any_of<int64_t>(random, {1, 40, 64, 67, 512});
  shape.values_in_keys = shape.k == shape.v && shape.v_dim <= shape.dim && random() % 2 == 0;
  shape.kv_heads = any_of<int64_t>(random, {1, 2, 3});
  shape.rows = any_of<int64_t>(random, {1, 1, 2, 3, 17, 33});
  if (mask == Mask::window && shape.dim < 100) shape.rows = any_of<int64_t>(random, {2, 40, 129, 200});
  // Keys that meet fewer queries are left to ggml.
  const bool many = shape.rows > 16 && mask != Mask::window && mask != Mask::selected;
  shape.heads = shape.kv_heads * (many ? any_of<int64_t>(random, {1, 2, 5, 8}) : any_of<int64_t>(random, {5, 8}));
  shape.keys = shape.rows + any_of<int64_t>(random, {0, 1, 30, 131});
  // More than a chunk holds.
  if (shape.dim == 576 && blocks && shape.rows <= 3) shape.keys += 5000;
  shape.streams = shape.keys > 5000 ? 1 : any_of<int64_t>(random, {1, 1, 2, 3});
  shape.sinks = random() % 3 == 0;
  shape.interleaved = random() % 3 != 0;
  return shape;
}

std::string text_of(const Shape &s) {
  static const char *const masks[] = {"none", "causal", "sequences", "hole", "window", "bidirectional", "scattered",
                                      "selected", "biased"};
  auto text = [](int64_t a, int64_t b) { return std::to_string(a) + "/" + std::to_string(b); };
  return text(s.dim, s.v_dim) + " dims, " + text(s.heads, s.kv_heads) + " heads, " + text(s.rows, s.keys) +
         " rows/keys, " + std::to_string(s.streams) + " streams, " + ggml_type_name(s.k) + "/" + ggml_type_name(s.v) +
         ", mask " + masks[static_cast<int>(s.mask)] + (s.sinks ? ", sinks" : "") +
         (s.values_in_keys ? ", v in k" : "") + (s.interleaved ? "" : ", head by head");
}

Problem::Problem(const Shape &shape, uint64_t seed)
    : shape_(shape),
      scale_(shape.scale != 0 ? shape.scale : 1 / std::sqrt(static_cast<float>(shape.dim))),
      bias_(static_cast<size_t>(shape.streams * shape.rows * shape.keys)) {
  std::mt19937_64 random(seed);
  context_ = ggml_init({ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true});
  ggml_tensor *rows = ggml_new_tensor_4d(context_, GGML_TYPE_F32, shape.dim, shape.heads, shape.rows, shape.streams);
  q_ = ggml_permute(context_, rows, 0, 2, 1, 3);
  k_ = cache(context_, shape.k, shape.dim, shape);
  v_ = shape.values_in_keys ? ggml_view_4d(context_, k_, shape.v_dim, shape.keys, shape.kv_heads, shape.streams,
                                           k_->nb[1], k_->nb[2], k_->nb[3], 0)
                            : cache(context_, shape.v, shape.v_dim, shape);
  if (shape.mask != Mask::none) {
    mask_ = ggml_new_tensor_4d(context_, GGML_TYPE_F16, shape.keys, shape.rows, 1, shape.streams);
  }
  out_ = ggml_flash_attn_ext(context_, q_, k_, v_, mask_, scale_, shape.max_bias, shape.softcap);
  if (shape.sinks) {
    sinks_ = ggml_new_tensor_1d(context_, GGML_TYPE_F32, shape.heads);
    ggml_flash_attn_ext_add_sinks(out_, sinks_);
  }
  graph_ = ggml_new_graph(context_);
  ggml_build_forward_expand(graph_, out_);
  buffer_ = ggml_backend_alloc_ctx_tensors_from_buft(context_, ggml_backend_cpu_buffer_type());
  ggml_backend_buffer_clear(buffer_, 0xff);

  auto *numbers = static_cast<float *>(rows->data);
  for (int64_t i = 0; i < ggml_nelements(rows); ++i) numbers[i] = uniform(random) * 3;
  for (int64_t i = 0; sinks_ && i < shape.heads; ++i) static_cast<float *>(sinks_->data)[i] = uniform(random) * 4;
  if (mask_) fill_mask(random);
  fill_keys(k_, random);
  if (!shape.values_in_keys) fill_keys(v_, random);
}

Problem::~Problem() {
  ggml_backend_buffer_free(buffer_);
  ggml_free(context_);
}

void Problem::set_scale(float scale) {
  scale_ = scale;
  std::memcpy(out_->op_params, &scale, sizeof scale);
}

float Problem::bias(int64_t stream, int64_t row, int64_t key) const {
  return bias_[static_cast<size_t>((stream * shape_.rows + row) * shape_.keys + key)];
}

bool Problem::sees(int64_t stream, int64_t row, int64_t key) const { return bias(stream, row, key) > hidden; }

void Problem::fill_mask(std::mt19937_64 &random) {
  const int64_t rows = shape_.rows, keys = shape_.keys;
  std::vector<ggml_fp16_t> narrow(bias_.size());
  for (int64_t stream = 0; stream < shape_.streams; ++stream) {
    const int64_t past = below(random, std::max<int64_t>(keys - rows, 0) + 1), half = rows / 2;
    const int64_t hole = below(random, past + 1), window = 1 + below(random, std::max<int64_t>(keys / 3, 1));
    const int64_t middle = below(random, keys + 1);
    const bool ahead = below(random, 3) == 0;  // windows in a text that is seen whole
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t key = 0; key < keys; ++key) {
        const bool before = key <= past + row;
        bool sees = before;
        float value = 0;
        switch (shape_.mask) {
          case Mask::hole: sees = before && (key < hole || key >= hole + 3); break;
          case Mask::window: sees = (before || ahead) && key > past + row - window; break;
          case Mask::bidirectional: sees = (row < half) == (key < middle); break;
          case Mask::scattered: sees = below(random, 2) == 0; break;
          case Mask::selected: sees = before && below(random, shape_.selected_one_in) == 0; break;
          case Mask::biased: value = uniform(random); break;
          case Mask::sequences:
            sees = row == half ? false
                   : row < half ? key <= std::min(row, middle - 1)
                                : key >= middle && key <= middle + past / 2 + row;
            break;
          default: break;
        }
        const auto at = static_cast<size_t>((stream * rows + row) * keys + key);
        narrow[at] = ggml_fp32_to_fp16(sees ? value : hidden);
        bias_[at] = ggml_fp16_to_fp32(narrow[at]);
      }
    }
  }
  std::memcpy(mask_->data, narrow.data(), narrow.size() * sizeof(ggml_fp16_t));
}

void Problem::fill_keys(ggml_tensor *tensor, std::mt19937_64 &random) {
  std::vector<float> row(static_cast<size_t>(tensor->ne[0]));
  for (int64_t stream = 0; stream < shape_.streams; ++stream) {
    for (int64_t key = 0; key < shape_.keys; ++key) {
      bool seen = false;
      for (int64_t i = 0; i < shape_.rows; ++i) seen = seen || sees(stream, i, key);
      // What is left as it was is NaN. A row of blocks would be, too, but for ggml's own dot products.
      if (!seen && shape_.mask != Mask::scattered) continue;
      for (int64_t head = 0; head < shape_.kv_heads; ++head) {
        for (float &number : row) number = uniform(random);
        auto *to = const_cast<char *>(row_of(tensor, key, head, stream));
        ggml_quantize_chunk(tensor->type, row.data(), to, 0, 1, tensor->ne[0], nullptr);
      }
    }
  }
}

void Problem::expected_row(int64_t stream, int64_t row, int64_t head, std::vector<double> &to) const {
  const int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
  const std::vector<float> q = floats(q_, row, head, stream);
  std::vector<std::pair<int64_t, double>> scores;
  double most = sinks_ ? static_cast<double>(static_cast<float *>(sinks_->data)[head]) : -1e300;
  for (int64_t key = 0; key < shape_.keys; ++key) {
    if (!sees(stream, row, key)) continue;
    const std::vector<float> k = floats(k_, key, kv_head, stream);
    double score = 0;
    for (size_t d = 0; d < k.size(); ++d) score += static_cast<double>(q[d]) * static_cast<double>(k[d]);
    score = score * static_cast<double>(scale_) + static_cast<double>(bias(stream, row, key));
    scores.emplace_back(key, score);
    most = std::max(most, score);
  }
  double sum = sinks_ ? std::exp(static_cast<double>(static_cast<float *>(sinks_->data)[head]) - most) : 0;
  for (const auto &score : scores) sum += std::exp(score.second - most);
  to.assign(static_cast<size_t>(shape_.v_dim), 0);
  for (const auto &[key, score] : scores) {
    const std::vector<float> v = floats(v_, key, kv_head, stream);
    for (size_t d = 0; d < v.size(); ++d) to[d] += std::exp(score - most) / sum * static_cast<double>(v[d]);
  }
}

double Problem::error() const {
  double largest = 0;
  std::vector<double> expected;
  const auto *got = static_cast<const float *>(out_->data);
  for (int64_t stream = 0; stream < shape_.streams; ++stream) {
    for (int64_t row = 0; row < shape_.rows; ++row) {
      for (int64_t head = 0; head < shape_.heads; ++head) {
        expected_row(stream, row, head, expected);
        for (const double number : expected) {
          const double difference = std::fabs(number - static_cast<double>(*got++));
          if (!(difference <= largest)) largest = std::isnan(difference) ? 1e300 : difference;
        }
      }
    }
  }
  return largest;
}
