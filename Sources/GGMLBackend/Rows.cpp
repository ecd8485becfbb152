#include "Rows.hpp"

#include <cstring>

#include "Threads.hpp"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace mla_ggml {

namespace {

/// Elements that a thread is worth waking for.
constexpr int64_t grain = 32768;

#ifdef __x86_64__
// ggml's own works element by element.
__attribute__((target("avx,f16c"))) void to_fp16_f16c(const float *from, ggml_fp16_t *to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
  }
  ggml_fp32_to_fp16_row(from + i, to + i, count - i);
}
#endif

void to_fp16(const float *from, ggml_fp16_t *to, int64_t count) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("f16c")) return to_fp16_f16c(from, to, count);
#endif
  ggml_fp32_to_fp16_row(from, to, count);
}

void convert(const float *from, ggml_type type, char *to, int64_t count) {
  switch (type) {
    case GGML_TYPE_F16: return to_fp16(from, reinterpret_cast<ggml_fp16_t *>(to), count);
    case GGML_TYPE_BF16: return ggml_fp32_to_bf16_row(from, reinterpret_cast<ggml_bf16_t *>(to), count);
    default: std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
  }
}

}  // namespace

void *Scratch::bytes(size_t count) {
  if (count > size_) {
    memory_.reset();
    size_ = 0;
    memory_.reset(::operator new(count, std::align_val_t{64}));
    size_ = count;
  }
  return memory_.get();
}

void convert_queries(const Node &node, ggml_type type, void *to) {
  const ggml_tensor *q = node.q;
  const size_t size = ggml_row_size(type, node.dim);
  const int64_t count = node.streams * node.rows * node.heads;
  in_parallel(count, grain / node.dim + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto head = static_cast<size_t>(i % node.heads), row = static_cast<size_t>(i / node.heads % node.rows);
      const auto stream = static_cast<size_t>(i / node.heads / node.rows);
      const char *from = static_cast<const char *>(q->data) + head * q->nb[2] + row * q->nb[1] + stream * q->nb[3];
      convert(reinterpret_cast<const float *>(from), type, static_cast<char *>(to) + static_cast<size_t>(i) * size,
              node.dim);
    }
  });
}

void copy_rows(const ggml_tensor *tensor, const std::vector<int64_t> &rows, ggml_type type, void *to) {
  const int64_t dim = tensor->ne[0], heads = tensor->ne[2], count = static_cast<int64_t>(rows.size()) * heads;
  const size_t size = ggml_row_size(type, dim);
  const ggml_to_float_t to_float = ggml_get_type_traits(tensor->type)->to_float;
  in_parallel(count, grain / dim + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto row = static_cast<size_t>(rows[static_cast<size_t>(i / heads)]), head = static_cast<size_t>(i % heads);
      const char *from = static_cast<const char *>(tensor->data) + row * tensor->nb[1] + head * tensor->nb[2];
      char *copy = static_cast<char *>(to) + static_cast<size_t>(i) * size;
      if (tensor->type == type) {
        std::memcpy(copy, from, size);
      } else {
        to_float(from, reinterpret_cast<float *>(copy), dim);
      }
    }
  });
}

}  // namespace mla_ggml
