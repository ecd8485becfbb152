// What the ABI tests share: cases, poisoned tensors, a float64 reference.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "mla_prefill.hpp"

namespace test {

// --- Cases ------------------------------------------------------------------

[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  throw std::runtime_error(text);
}

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) test::fail("%s:%d: %s", __FILE__, __LINE__, #condition);     \
  } while (false)

/// As CHECK, with a printf format that says what was seen.
#define EXPECT(condition, ...)                \
  do {                                        \
    if (!(condition)) test::fail(__VA_ARGS__); \
  } while (false)

struct Case {
  std::string name;
  std::function<void()> body;
};

/// Runs the cases whose name contains argv[1], or all; the program's exit code.
inline int run(int argc, char** argv, const std::vector<Case>& cases) {
  int failures = 0;
  for (const Case& each : cases) {
    if (argc > 1 && each.name.find(argv[1]) == std::string::npos) continue;
    try {
      each.body();
      std::printf("ok %s\n", each.name.c_str());
    } catch (const std::exception& failure) {
      std::printf("not ok %s: %s\n", each.name.c_str(), failure.what());
      ++failures;
    }
    std::fflush(stdout);
  }
  return failures == 0 ? 0 : 1;
}

// --- Elements ---------------------------------------------------------------

inline std::size_t element_size(std::int32_t dtype) {
  return dtype == MLA_DTYPE_FLOAT32 ? 4 : dtype == MLA_DTYPE_FLOAT8_E4M3FN ? 1 : 2;
}

inline const char* dtype_name(std::int32_t dtype) {
  static const char* const names[] = {"none", "fp32", "fp16", "bf16", "fp8"};
  return names[dtype];
}

inline double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction != 0 ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

/// Round to nearest, ties to even; overflow to infinity.
inline std::uint16_t half_bits(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(value);
  if (size >= 65520) return static_cast<std::uint16_t>(sign | 0x7C00);
  int exponent = size == 0 ? -14 : std::max(std::ilogb(size), -14);
  double units = std::nearbyint(std::ldexp(size, 10 - exponent));
  if (units >= 2048) {
    units /= 2;
    ++exponent;
  }
  const int bits = units < 1024 ? static_cast<int>(units)
                                : ((exponent + 15) << 10) + static_cast<int>(units) - 1024;
  return static_cast<std::uint16_t>(sign | bits);
}

inline double load(const void* at, std::int32_t dtype) {
  if (dtype == MLA_DTYPE_FLOAT32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return static_cast<double>(value);
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  if (dtype == MLA_DTYPE_FLOAT16) return half_value(bits);
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return static_cast<double>(value);
}

inline void store(void* at, std::int32_t dtype, double value) {
  if (dtype == MLA_DTYPE_FLOAT16) {
    const std::uint16_t bits = half_bits(value);
    std::memcpy(at, &bits, sizeof(bits));
    return;
  }
  const float narrow = static_cast<float>(value);
  if (dtype == MLA_DTYPE_FLOAT32) {
    std::memcpy(at, &narrow, sizeof(narrow));
    return;
  }
  std::uint32_t wide;
  std::memcpy(&wide, &narrow, sizeof(wide));
  const auto bits = static_cast<std::uint16_t>((wide + 0x7FFF + (wide >> 16 & 1)) >> 16);
  std::memcpy(at, &bits, sizeof(bits));
}

// --- Tensors ----------------------------------------------------------------

/// An owned tensor of two or three dimensions. Every byte starts as 0xFF, which
/// is NaN in all formats: what lies between the rows of a strided tensor poisons
/// a kernel that reads it, and shows one that writes it.
class Array {
 public:
  /// `padding`: elements between the rows of the last dimension, 0 for dense.
  Array(std::int32_t dtype, std::vector<std::int64_t> shape, std::int64_t padding = 0)
      : view_() {
    std::int64_t stride = 1;
    view_.dtype = dtype;
    view_.ndim = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = shape.size(); i-- > 0;) {
      view_.shape[i] = shape[i];
      view_.strides[i] = stride;
      stride *= shape[i];
      if (i + 1 == shape.size()) stride += padding;
    }
    bytes_.assign(static_cast<std::size_t>(stride) * element_size(dtype) + 64, 0xFF);
    view_.data = bytes_.data();
  }
  Array(const Array& other) : view_(other.view_), bytes_(other.bytes_) {
    view_.data = bytes_.data();
  }
  Array& operator=(const Array& other) {
    view_ = other.view_;
    bytes_ = other.bytes_;
    view_.data = bytes_.data();
    return *this;
  }

  const mla::tensor& view() const { return view_; }
  mla::tensor& view() { return view_; }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }
  std::int64_t size(int dimension) const { return view_.shape[dimension]; }

  double at(std::int64_t i, std::int64_t j, std::int64_t k = 0) const {
    return load(bytes_.data() + offset(i, j, k), view_.dtype);
  }
  void set(std::int64_t i, std::int64_t j, std::int64_t k, double value) {
    store(bytes_.data() + offset(i, j, k), view_.dtype, value);
  }

  /// Whether nothing was written outside the elements.
  bool gaps_are_intact() const {
    std::vector<std::uint8_t> rest = bytes_;
    each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
      std::memset(rest.data() + offset(i, j, k), 0xFF, element_size(view_.dtype));
    });
    return std::all_of(rest.begin(), rest.end(), [](std::uint8_t byte) { return byte == 0xFF; });
  }

  Array& fill(std::mt19937& random, double deviation = 1.0) {
    std::normal_distribution<double> normal(0.0, deviation);
    each([&](std::int64_t i, std::int64_t j, std::int64_t k) { set(i, j, k, normal(random)); });
    return *this;
  }

  template <class Visit>
  void each(Visit visit) const {
    const std::int64_t depth = view_.ndim == 3 ? view_.shape[2] : 1;
    for (std::int64_t i = 0; i < view_.shape[0]; ++i) {
      for (std::int64_t j = 0; j < view_.shape[1]; ++j) {
        for (std::int64_t k = 0; k < depth; ++k) visit(i, j, k);
      }
    }
  }

 private:
  std::size_t offset(std::int64_t i, std::int64_t j, std::int64_t k) const {
    const std::int64_t last = view_.ndim == 3 ? k : 0;
    return static_cast<std::size_t>(i * view_.strides[0] + j * view_.strides[1] + last) *
           element_size(view_.dtype);
  }

  mla::tensor view_;
  std::vector<std::uint8_t> bytes_;
};

// --- Attention --------------------------------------------------------------

struct Model {
  std::int32_t heads = 3, nope = 128, rope = 64, v = 128, rank = 512;

  std::int64_t qk() const { return nope + rope; }

  mla_backend_config config(std::int32_t max_isa = MLA_ISA_DEFAULT) const {
    mla_backend_config made = MLA_BACKEND_CONFIG_INIT;
    made.num_heads = heads;
    made.scale = 1.0 / std::sqrt(static_cast<double>(qk()));
    made.kv_lora_rank = rank;
    made.qk_nope_head_dim = nope;
    made.qk_rope_head_dim = rope;
    made.v_head_dim = v;
    made.max_isa = max_isa;
    return made;
  }

  mla_selector_config selector(std::int32_t dtype = MLA_DTYPE_BFLOAT16) const {
    mla_selector_config made = MLA_SELECTOR_CONFIG_INIT;
    made.dtype = dtype;
    made.qk_nope_head_dim = nope;
    made.qk_rope_head_dim = rope;
    made.v_head_dim = v;
    return made;
  }
};

using Offsets = std::vector<std::int32_t>;

/// Offsets of requests of these lengths.
inline Offsets offsets_of(const std::vector<std::int32_t>& lengths) {
  Offsets offsets{0};
  for (std::int32_t length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

/// The tensors of one run: new tokens where kv_loc is q_loc and causal is set,
/// else a context chunk.
struct Attention {
  Attention(const Model& shape, std::int32_t dtype, Offsets q_offsets, Offsets kv_offsets,
            bool is_causal, unsigned seed, std::int64_t padding = 0)
      : model(shape),
        q_loc(std::move(q_offsets)),
        kv_loc(std::move(kv_offsets)),
        causal(is_causal),
        q(dtype, {q_loc.back(), shape.heads, shape.qk()}, padding),
        k(dtype, {kv_loc.back(), shape.heads, shape.qk()}, padding),
        v(dtype, {kv_loc.back(), shape.heads, shape.v}, padding),
        out(dtype, {q_loc.back(), shape.heads, shape.v}, padding),
        lse(MLA_DTYPE_FLOAT32, {shape.heads, q_loc.back()}, padding) {
    std::mt19937 random(seed);
    q.fill(random);
    k.fill(random);
    v.fill(random);
  }

  static Attention new_tokens(const Model& model, std::int32_t dtype,
                              const std::vector<std::int32_t>& lengths, unsigned seed,
                              std::int64_t padding = 0) {
    return {model, dtype, offsets_of(lengths), offsets_of(lengths), true, seed, padding};
  }

  static Attention context(const Model& model, std::int32_t dtype,
                           const std::vector<std::int32_t>& q_lengths,
                           const std::vector<std::int32_t>& kv_lengths, unsigned seed,
                           std::int64_t padding = 0) {
    return {model, dtype, offsets_of(q_lengths), offsets_of(kv_lengths), false, seed, padding};
  }

  mla_context_chunk chunk(std::int32_t index = -1) const {
    mla_context_chunk made = MLA_CONTEXT_CHUNK_INIT;
    made.index = index;
    made.num_requests = static_cast<std::int32_t>(q_loc.size() - 1);
    made.query_start_loc = q_loc.data();
    made.cu_seq_lens = kv_loc.data();
    return made;
  }

  /// Prepares for this run alone, and runs.
  void run(mla::backend& backend) {
    if (causal) {
      backend.prepare_metadata(q_loc);
    } else {
      const mla_context_chunk chunks[] = {chunk(0)};
      backend.prepare_metadata(q_loc, chunks);
    }
    run_prepared(backend);
  }

  void run_prepared(const mla::backend& backend, mla::workspace scratch = {},
                    std::int32_t chunk_index = 0) {
    if (causal) {
      backend.run_prefill_new_tokens(q.view(), k.view(), v.view(), out.view(), &lse.view(),
                                     scratch);
    } else {
      backend.run_prefill_context_chunk(chunk(chunk_index), q.view(), k.view(), v.view(),
                                        out.view(), lse.view(), scratch);
    }
  }

  Model model;
  Offsets q_loc, kv_loc;
  bool causal;
  Array q, k, v, out, lse;
};

/// Largest acceptable errors of one dtype.
struct Bounds {
  double out, lse;

  static Bounds of(std::int32_t dtype) {
    switch (dtype) {
      case MLA_DTYPE_FLOAT32: return {2e-5, 2e-4};
      case MLA_DTYPE_FLOAT16: return {1.5e-3, 2e-4};
      default: return {4e-3, 2e-4};
    }
  }
};

/// Root of sum((a - b)^2) / sum(b^2), collected element by element.
class RelativeError {
 public:
  void add(double got, double expected) {
    difference_ += (got - expected) * (got - expected);
    norm_ += expected * expected;
  }
  double value() const { return norm_ == 0 ? std::sqrt(difference_) : std::sqrt(difference_ / norm_); }

 private:
  double difference_ = 0, norm_ = 0;
};

/// What float64 attention gives for one run.
struct Reference {
  std::vector<double> out;  // [rows, heads, v]
  std::vector<double> lse;  // [rows, heads]
};

inline std::vector<double> values_of(const Array& array) {
  std::vector<double> values;
  array.each([&](std::int64_t i, std::int64_t j, std::int64_t k) { values.push_back(array.at(i, j, k)); });
  return values;
}

inline Reference reference_of(const Attention& a) {
  const std::vector<double> q = values_of(a.q), k = values_of(a.k), v = values_of(a.v);
  const auto heads = static_cast<std::size_t>(a.model.heads);
  const auto qk_dim = static_cast<std::size_t>(a.model.qk()), v_dim = static_cast<std::size_t>(a.model.v);
  const double scale = a.model.config().scale;
  Reference made;
  std::vector<double> weights, row_out(v_dim);
  for (std::size_t r = 0; r + 1 < a.q_loc.size(); ++r) {
    for (auto row = static_cast<std::size_t>(a.q_loc[r]); row < static_cast<std::size_t>(a.q_loc[r + 1]); ++row) {
      const auto begin = static_cast<std::size_t>(a.kv_loc[r]);
      const std::size_t end = a.causal ? row + 1 : static_cast<std::size_t>(a.kv_loc[r + 1]);
      for (std::size_t head = 0; head < heads; ++head) {
        double largest = -INFINITY, sum = 0;
        weights.assign(end - begin, 0.0);
        for (std::size_t key = begin; key < end; ++key) {
          const double* query = &q[(row * heads + head) * qk_dim];
          const double* other = &k[(key * heads + head) * qk_dim];
          double dot = 0;
          for (std::size_t d = 0; d < qk_dim; ++d) dot += query[d] * other[d];
          weights[key - begin] = dot * scale;
          largest = std::max(largest, dot * scale);
        }
        for (double& weight : weights) sum += weight = std::exp(weight - largest);
        row_out.assign(v_dim, 0.0);
        for (std::size_t key = begin; key < end; ++key) {
          const double* value = &v[(key * heads + head) * v_dim];
          for (std::size_t d = 0; d < v_dim; ++d) row_out[d] += weights[key - begin] / sum * value[d];
        }
        made.out.insert(made.out.end(), row_out.begin(), row_out.end());
        made.lse.push_back(begin < end ? std::log(sum) + largest : -INFINITY);
      }
    }
  }
  return made;
}

/// Fails unless the results are close to the reference.
inline void expect_close(const Attention& a, const Reference& expected, const std::string& what) {
  const Bounds bounds = Bounds::of(a.q.view().dtype);
  RelativeError out;
  std::size_t i = 0;
  a.out.each([&](std::int64_t row, std::int64_t head, std::int64_t d) {
    out.add(a.out.at(row, head, d), expected.out[i++]);
  });
  EXPECT(out.value() <= bounds.out, "%s: out is off by %.2e", what.c_str(), out.value());
  a.lse.each([&](std::int64_t head, std::int64_t row, std::int64_t) {
    const double got = a.lse.at(head, row);
    const double right = expected.lse[static_cast<std::size_t>(row * a.model.heads + head)];
    EXPECT(got == right || std::fabs(got - right) <= bounds.lse, "%s: lse is %g, not %g",
           what.c_str(), got, right);
  });
}

// --- The library under test -------------------------------------------------

inline const std::vector<const char*>& backends() {
  static const std::vector<const char*> names{"FLASH_ATTN",     "FLASHINFER",    "TRTLLM_RAGGED",
                                              "TOKENSPEED_MLA", "ROCM_AITER_FA", "CPU", "ZEN_CPU"};
  return names;
}

inline mla_cpu_info cpu_info() {
  mla_cpu_info info = MLA_CPU_INFO_INIT;
  mla::check(mla_get_cpu_info(&info));
  return info;
}

/// The kernel tables that this host can run.
inline std::vector<std::int32_t> tables() {
  std::vector<std::int32_t> list;
  for (std::int32_t isa = MLA_ISA_PORTABLE; isa <= cpu_info().isa; ++isa) list.push_back(isa);
  return list;
}

/// Whether a backend, as each_backend() calls it, keeps its vendor's rule that a
/// batch's requests all have queries and keys.
inline bool refuses_empty_requests(const std::string& what) {
  return what.rfind("TRTLLM_RAGGED", 0) == 0;
}

/// Calls `body` with each backend that runs here, on each kernel table.
template <class Body>
void each_backend(const Model& model, Body body) {
  for (const char* name : backends()) {
    for (std::int32_t isa : tables()) {
      const mla_backend_config config = model.config(isa);
      mla_backend* probe = nullptr;
      const mla_status status = mla_backend_create(name, &config, &probe);
      mla_backend_destroy(probe);
      // ZEN_CPU is for AMD hosts with AVX512_BF16.
      if (status == MLA_ERROR_UNSUPPORTED_HARDWARE && std::strcmp(name, "ZEN_CPU") == 0) continue;
      mla::backend backend(name, config);
      body(backend, std::string(name) + "/" + mla_isa_name(isa));
    }
  }
}

}  // namespace test
