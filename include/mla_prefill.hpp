// mla_prefill.hpp - the C ABI of mla_prefill.h for C++17, header only.
//
// SPDX-License-Identifier: Apache-2.0
//
//   - a failing call throws mla::error, with the status and the message;
//   - handles are move-only and destroy themselves;
//   - tensors are views made from pointers and shapes, lists of offsets are
//     spans; nothing here allocates or copies, exceptions apart;
//   - a class becomes a backend through mla::register_backend<T>() or
//     mla::override_backend<T>(), and what it throws becomes a status.
//
// The C structs (mla_selector_config, mla_prefill_metadata, ...) are used as
// they are: `mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;`.
#ifndef MLA_PREFILL_HPP
#define MLA_PREFILL_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mla_prefill.h"

namespace mla {

// --- Errors -----------------------------------------------------------------

/// A failing call: its status and why (field, value, rule).
class error : public std::runtime_error {
 public:
  error(mla_status status, const char* message) : std::runtime_error(message), status_(status) {}
  error(mla_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}

  /// One of MLA_ERROR_*.
  mla_status status() const noexcept { return status_; }

 private:
  mla_status status_;
};

/// Throws unless `status` is MLA_OK.
inline void check(mla_status status) {
  if (status != MLA_OK) throw error(status, mla_last_error_message());
}

// --- Views ------------------------------------------------------------------

/// A borrowed run of elements; std::span is C++20.
template <class T>
class span {
 public:
  constexpr span() noexcept = default;
  constexpr span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  template <std::size_t N>
  constexpr span(T (&array)[N]) noexcept : data_(array), size_(N) {}
  /// From anything contiguous: std::vector, std::array, another span.
  template <class Range,
            class = std::enable_if_t<std::is_convertible_v<
                decltype(std::declval<Range&>().data()), T*>>>
  constexpr span(Range&& range) noexcept : data_(range.data()), size_(range.size()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t i) const noexcept { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Storage of the formats that C++17 has no type for.
struct bfloat16 {
  std::uint16_t bits;
};
struct float16 {
  std::uint16_t bits;
};
struct float8_e4m3fn {
  std::uint8_t bits;
};
/// Scales of weights.
struct float8_e8m0fnu {
  std::uint8_t bits;
};

/// MLA_DTYPE_* of an element type.
template <class T>
constexpr std::int32_t dtype_of() noexcept {
  using Element = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<Element, float>) {
    return MLA_DTYPE_FLOAT32;
  } else if constexpr (std::is_same_v<Element, float16>) {
    return MLA_DTYPE_FLOAT16;
  } else if constexpr (std::is_same_v<Element, bfloat16>) {
    return MLA_DTYPE_BFLOAT16;
  } else if constexpr (std::is_same_v<Element, float8_e8m0fnu>) {
    return MLA_DTYPE_FLOAT8_E8M0FNU;
  } else {
    static_assert(std::is_same_v<Element, float8_e4m3fn>, "not an element type of tensors");
    return MLA_DTYPE_FLOAT8_E4M3FN;
  }
}

/// A borrowed view of memory, the host's unless on() says whose; see mla_tensor for the
/// fields. The C struct has one pointer for inputs and outputs: a view of const elements
/// must be used as an input only.
class tensor : public mla_tensor {
 public:
  tensor() noexcept : mla_tensor(MLA_TENSOR_INIT) {}

  /// Dense rows, the last dimension fastest.
  template <class T>
  tensor(T* elements, std::initializer_list<std::int64_t> sizes)
      : tensor(untyped(elements), dtype_of<T>(), sizes) {}

  /// Strides in elements, one for each dimension.
  template <class T>
  tensor(T* elements, std::initializer_list<std::int64_t> sizes,
         std::initializer_list<std::int64_t> element_strides)
      : tensor(untyped(elements), dtype_of<T>(), sizes, element_strides) {}

  tensor(void* elements, std::int32_t element_type, std::initializer_list<std::int64_t> sizes)
      : tensor() {
    describe(elements, element_type, sizes);
    std::int64_t stride = 1;
    for (std::int32_t i = ndim - 1; i >= 0; --i) {
      strides[i] = stride;
      if (shape[i] > 0 && stride > std::numeric_limits<std::int64_t>::max() / shape[i]) {
        throw error(MLA_ERROR_INVALID_ARGUMENT, "tensor: has more elements than int64_t counts");
      }
      stride *= shape[i];
    }
  }

  tensor(void* elements, std::int32_t element_type, std::initializer_list<std::int64_t> sizes,
         std::initializer_list<std::int64_t> element_strides)
      : tensor() {
    if (element_strides.size() != sizes.size()) {
      throw error(MLA_ERROR_INVALID_ARGUMENT, "tensor: must have one stride per dimension");
    }
    describe(elements, element_type, sizes);
    std::int32_t i = 0;
    for (std::int64_t stride : element_strides) strides[i++] = stride;
  }

  /// Entries [begin, end) of one dimension.
  tensor narrow(std::int32_t dimension, std::int64_t begin, std::int64_t end) const {
    if (dimension < 0 || dimension >= ndim || begin < 0 || end < begin || end > shape[dimension]) {
      throw error(MLA_ERROR_INVALID_ARGUMENT, "tensor::narrow: must lie inside the tensor");
    }
    tensor part = *this;
    part.shape[dimension] = end - begin;
    if (data != nullptr) {
      part.data = static_cast<char*>(data) + begin * strides[dimension] * element_size();
    }
    return part;
  }

  /// The same view of memory of a device: MLA_DEVICE_*, and which of them.
  tensor on(std::int32_t type, std::int32_t id = 0) const noexcept {
    tensor there = *this;
    there.device_type = type;
    there.device_id = id;
    return there;
  }

  std::int64_t element_size() const noexcept {
    switch (dtype) {
      case MLA_DTYPE_FLOAT32: return 4;
      case MLA_DTYPE_FLOAT16:
      case MLA_DTYPE_BFLOAT16: return 2;
      default: return 1;
    }
  }

 private:
  template <class T>
  static void* untyped(T* elements) noexcept {
    return const_cast<std::remove_cv_t<T>*>(elements);
  }

  void describe(void* elements, std::int32_t element_type,
                std::initializer_list<std::int64_t> sizes) {
    if (sizes.size() > MLA_MAX_NDIM) {
      throw error(MLA_ERROR_INVALID_ARGUMENT, "tensor: has more than MLA_MAX_NDIM dimensions");
    }
    data = elements;
    dtype = element_type;
    ndim = static_cast<std::int32_t>(sizes.size());
    std::int32_t i = 0;
    for (std::int64_t size : sizes) shape[i++] = size;
  }
};

namespace detail {

/// The C structs count in int32.
inline std::int32_t count(std::size_t size, const char* what) {
  if (size > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw error(MLA_ERROR_INVALID_ARGUMENT, std::string(what) + ": has more than INT32_MAX entries");
  }
  return static_cast<std::int32_t>(size);
}

/// Requests described by a list of [num_requests + 1] offsets.
inline std::int32_t requests(span<const std::int32_t> offsets, const char* what) {
  if (offsets.empty()) {
    throw error(MLA_ERROR_INVALID_ARGUMENT, std::string(what) + ": must have num_requests + 1 entries");
  }
  return count(offsets.size() - 1, what);
}

/// Of a list of block numbers, as many for each request.
inline std::int32_t blocks_per_request(span<const std::int32_t> table, std::int32_t num_requests) {
  const std::size_t rows = static_cast<std::size_t>(num_requests);
  if (rows == 0 ? !table.empty() : table.size() % rows != 0) {
    throw error(MLA_ERROR_INVALID_ARGUMENT,
                "block_table: must have as many entries for each of num_requests");
  }
  return rows == 0 ? 0 : count(table.size() / rows, "block_table");
}

/// Owns one handle of the C ABI.
template <class Handle, void (*Destroy)(Handle*)>
class handle {
 public:
  handle() noexcept = default;
  handle(handle&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  handle& operator=(handle&& other) noexcept {
    if (this != &other) {
      Destroy(raw_);
      raw_ = std::exchange(other.raw_, nullptr);
    }
    return *this;
  }
  handle(const handle&) = delete;
  handle& operator=(const handle&) = delete;
  ~handle() { Destroy(raw_); }

  /// For calls that this header does not wrap; still owned here.
  Handle* get() const noexcept { return raw_; }

 protected:
  Handle* raw_ = nullptr;
};

}  // namespace detail

// --- Memory and threads -----------------------------------------------------

/// What calls have done so far, of those pairs of entry and kernel that have any.
inline std::vector<mla_call_stats> stats() {
  std::vector<mla_call_stats> found;
  for (std::int32_t i = 0; i < mla_stats_size(); ++i) {
    mla_call_stats row = MLA_CALL_STATS_INIT;
    check(mla_get_stats(i, &row));
    if (row.calls > 0) found.push_back(row);
  }
  return found;
}

/// Gives memory that runs have left to the next ones back to the system: how many bytes.
inline std::int64_t trim() {
  std::int64_t bytes = 0;
  check(mla_trim(&bytes));
  return bytes;
}

#ifdef _OPENMP
/// Makes runs use the threads of this program's OpenMP regions instead of the
/// library's own, whose place the former keep for some time after a region.
/// `mla_set_parallel_for(nullptr, nullptr)` goes back, as a forked child must
/// that OpenMP's threads have not followed.
inline void use_openmp_threads() {
  const auto loop = [](void*, std::int64_t count, mla_parallel_task task, void* task_context) {
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < count; ++i) task(task_context, i);
  };
  check(mla_set_parallel_for(loop, nullptr));
}
#endif

// --- Selecting --------------------------------------------------------------

/// The name of the backend that serves `config`.
inline const char* select_backend(const mla_selector_config& config) {
  const char* name = nullptr;
  check(mla_select_backend(&config, &name));
  return name;
}

/// All members of the registry, judged by one configuration.
class backend_list : public detail::handle<mla_backend_list, mla_backend_list_destroy> {
 public:
  explicit backend_list(const mla_selector_config& config) {
    check(mla_backend_list_create(&config, &raw_));
  }

  std::int32_t size() const noexcept { return mla_backend_list_size(raw_); }

  /// Strings belong to the list.
  mla_backend_info operator[](std::int32_t index) const {
    mla_backend_info info = MLA_BACKEND_INFO_INIT;
    check(mla_backend_list_get(raw_, index, &info));
    return info;
  }

  const char* reason(std::int32_t index, std::int32_t reason_index) const {
    const char* text = nullptr;
    check(mla_backend_list_reason(raw_, index, reason_index, &text));
    return text;
  }
};

// --- Context chunks ---------------------------------------------------------

/// Contexts packed into chunks of bounded size.
class context_plan : public detail::handle<mla_context_plan, mla_context_plan_destroy> {
 public:
  explicit context_plan(const mla_context_plan_args& args) {
    check(mla_plan_context_chunks(&args, &raw_));
  }

  std::int32_t size() const noexcept { return mla_context_plan_num_chunks(raw_); }

  /// Arrays belong to the plan.
  mla_context_plan_chunk operator[](std::int32_t index) const {
    mla_context_plan_chunk chunk = MLA_CONTEXT_PLAN_CHUNK_INIT;
    check(mla_context_plan_get(raw_, index, &chunk));
    return chunk;
  }

  /// The same chunk as metadata and runs take it.
  mla_context_chunk chunk(std::int32_t index) const {
    const mla_context_plan_chunk planned = (*this)[index];
    mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
    chunk.index = planned.index;
    chunk.num_requests = planned.request_end - planned.request_begin;
    chunk.query_start_loc = planned.query_start_loc;
    chunk.cu_seq_lens = planned.cu_seq_lens;
    return chunk;
  }
};

// --- Backend objects --------------------------------------------------------

/// Scratch handed to a run, on the device of the backend; empty: the library's own.
struct workspace {
  void* data = nullptr;
  std::int64_t size = 0;
};

class backend : public detail::handle<mla_backend, mla_backend_destroy> {
 public:
  backend(const char* name, const mla_backend_config& config) {
    check(mla_backend_create(name, &config, &raw_));
  }

  /// A second object of the same configuration, without metadata.
  backend clone() const {
    backend copy;
    check(mla_backend_clone(raw_, &copy.raw_));
    return copy;
  }

  const char* name() const noexcept { return mla_backend_name(raw_); }

  void prepare_metadata(const mla_prefill_metadata& metadata) {
    check(mla_prepare_metadata(raw_, &metadata));
  }

  /// `query_start_loc` has num_requests + 1 entries.
  void prepare_metadata(span<const std::int32_t> query_start_loc,
                        span<const mla_context_chunk> chunks = {}) {
    mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
    metadata.num_requests = detail::requests(query_start_loc, "query_start_loc");
    metadata.query_start_loc = query_start_loc.data();
    metadata.chunks = chunks.data();
    metadata.num_chunks = detail::count(chunks.size(), "chunks");
    prepare_metadata(metadata);
  }

  void run_prefill_new_tokens(const mla_new_tokens_args& args) const {
    check(mla_run_prefill_new_tokens(raw_, &args));
  }

  /// `lse` may be NULL; `stream` is the device's, NULL on the CPU.
  void run_prefill_new_tokens(const tensor& q, const tensor& k, const tensor& v, const tensor& out,
                              const tensor* lse = nullptr, workspace scratch = {},
                              void* stream = nullptr) const {
    mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
    args.q = &q;
    args.k = &k;
    args.v = &v;
    args.out = &out;
    args.lse = lse;
    args.workspace = scratch.data;
    args.workspace_size = scratch.size;
    args.stream = stream;
    run_prefill_new_tokens(args);
  }

  void run_prefill_context_chunk(const mla_context_chunk_args& args) const {
    check(mla_run_prefill_context_chunk(raw_, &args));
  }

  void run_prefill_context_chunk(const mla_context_chunk& chunk, const tensor& q, const tensor& k,
                                 const tensor& v, const tensor& out, const tensor& lse,
                                 workspace scratch = {}, void* stream = nullptr) const {
    mla_context_chunk_args args = MLA_CONTEXT_CHUNK_ARGS_INIT;
    args.chunk = &chunk;
    args.q = &q;
    args.k = &k;
    args.v = &v;
    args.out = &out;
    args.lse = &lse;
    args.workspace = scratch.data;
    args.workspace_size = scratch.size;
    args.stream = stream;
    run_prefill_context_chunk(args);
  }

  /// What a first run would wait for, done ahead.
  void warm_up() const { check(mla_warm_up(raw_)); }

  bool supports_out() const {
    std::int32_t supports = 0;
    check(mla_supports_out(raw_, &supports));
    return supports != 0;
  }

  bool supports_quant_output(std::int32_t dtype) const {
    std::int32_t supports = 0;
    check(mla_supports_quant_output(raw_, dtype, &supports));
    return supports != 0;
  }

  /// Bytes that any run of the prepared batch needs at the present number of
  /// threads.
  std::int64_t workspace_size() const {
    std::int64_t bytes = 0;
    check(mla_workspace_size(raw_, &bytes));
    return bytes;
  }

 private:
  backend() noexcept = default;
};

// --- Merging ----------------------------------------------------------------

inline void merge_attn_states(const mla_merge_args& args) { check(mla_merge_attn_states(&args)); }

/// `output_lse` may be NULL; tokens from `prefill_tokens_with_context` on have
/// no prefix, -1: all have.
inline void merge_attn_states(const tensor& output, const tensor* output_lse,
                              const tensor& prefix_output, const tensor& prefix_lse,
                              const tensor& suffix_output, const tensor& suffix_lse,
                              std::int64_t prefill_tokens_with_context = -1) {
  mla_merge_args args = MLA_MERGE_ARGS_INIT;
  args.output = &output;
  args.output_lse = output_lse;
  args.prefix_output = &prefix_output;
  args.prefix_lse = &prefix_lse;
  args.suffix_output = &suffix_output;
  args.suffix_lse = &suffix_lse;
  args.prefill_tokens_with_context = prefill_tokens_with_context;
  merge_attn_states(args);
}

// --- The whole layer --------------------------------------------------------

/// From latents and a cache to the output; shareable by threads.
class layer : public detail::handle<mla_layer, mla_layer_destroy> {
 public:
  /// `config.kv_b_proj` and `config.weight_scales` may go once this has returned.
  explicit layer(const mla_layer_config& config) { check(mla_layer_create(&config, &raw_)); }

  void forward(const mla_layer_forward_args& args) const { check(mla_layer_forward(raw_, &args)); }

  /// Bytes that a forward call of this batch needs at the present number of
  /// threads.
  std::int64_t workspace_size(const mla_layer_forward_args& args) const {
    std::int64_t bytes = 0;
    check(mla_layer_workspace_size(raw_, &args, &bytes));
    return bytes;
  }
};

inline void concat_and_cache_mla(const mla_concat_and_cache_args& args) {
  check(mla_concat_and_cache_mla(&args));
}

/// Token i goes to slot slot_mapping[i], nowhere if that is -1; `cache_scale` is
/// that of a plain fp8 cache; k_pe goes to `k_pe_cache`, if there is one.
inline void concat_and_cache_mla(const tensor& kv_c_normed, const tensor& k_pe,
                                 const tensor& kv_cache, span<const std::int64_t> slot_mapping,
                                 float cache_scale = 0,
                                 std::int32_t cache_format = MLA_CACHE_FORMAT_PLAIN,
                                 const tensor* k_pe_cache = nullptr) {
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  args.cache_scale = cache_scale;
  args.cache_format = cache_format;
  args.kv_c_normed = &kv_c_normed;
  args.k_pe = &k_pe;
  args.slot_mapping = slot_mapping.data();
  args.num_slots = static_cast<std::int64_t>(slot_mapping.size());
  args.kv_cache = &kv_cache;
  args.k_pe_cache = k_pe_cache;
  concat_and_cache_mla(args);
}

inline void gather_and_maybe_dequant_cache(const mla_gather_cache_args& args) {
  check(mla_gather_and_maybe_dequant_cache(&args));
}

/// Rows cu_seq_lens[i] to cu_seq_lens[i + 1] of `dst` become request i's tokens from
/// seq_starts[i], or its first, on; of `block_table` it has the i-th of num_requests rows,
/// side by side. `cache_scale` is that of a plain fp8 cache; k_pe comes from `k_pe_cache` and
/// goes to `k_pe`, if they are there.
inline void gather_and_maybe_dequant_cache(const tensor& kv_cache, const tensor& dst,
                                           span<const std::int32_t> block_table,
                                           span<const std::int32_t> cu_seq_lens,
                                           span<const std::int32_t> seq_starts = {},
                                           float cache_scale = 0,
                                           std::int32_t cache_format = MLA_CACHE_FORMAT_PLAIN,
                                           const tensor* k_pe_cache = nullptr,
                                           const tensor* k_pe = nullptr) {
  mla_gather_cache_args args = MLA_GATHER_CACHE_ARGS_INIT;
  args.cache_scale = cache_scale;
  args.cache_format = cache_format;
  args.kv_cache = &kv_cache;
  args.k_pe_cache = k_pe_cache;
  args.num_requests = detail::requests(cu_seq_lens, "cu_seq_lens");
  args.max_blocks = detail::blocks_per_request(block_table, args.num_requests);
  args.block_table = block_table.data();
  args.block_table_stride = args.max_blocks;
  args.cu_seq_lens = cu_seq_lens.data();
  if (!seq_starts.empty() &&
      seq_starts.size() != static_cast<std::size_t>(args.num_requests)) {
    throw error(MLA_ERROR_INVALID_ARGUMENT, "seq_starts: must have num_requests entries");
  }
  args.seq_starts = seq_starts.empty() ? nullptr : seq_starts.data();
  args.dst = &dst;
  args.k_pe = k_pe;
  gather_and_maybe_dequant_cache(args);
}

// --- Attention in one call --------------------------------------------------

namespace detail {

inline mla_attention_args attention_args(const tensor& q, const tensor& k, const tensor& v,
                                         const tensor& out, double scale, std::int32_t causal,
                                         const tensor* lse) noexcept {
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  args.q = &q;
  args.k = &k;
  args.v = &v;
  args.out = &out;
  args.lse = lse;
  args.scale = scale;
  args.causal = causal;
  return args;
}

}  // namespace detail

inline void attention(const mla_attention_args& args) { check(mla_attention(&args)); }

/// All rows are one request's or, with 4 dimensions, those of each element of the batch.
/// `lse` may be NULL.
inline void attention(const tensor& q, const tensor& k, const tensor& v, const tensor& out,
                      double scale, std::int32_t causal = MLA_CAUSAL_NONE,
                      const tensor* lse = nullptr) {
  attention(detail::attention_args(q, k, v, out, scale, causal, lse));
}

/// Requests by their offsets, of num_requests + 1 entries; without `cu_seqlens_k` those of
/// q hold for k. `lse` may be NULL.
inline void attention(const tensor& q, const tensor& k, const tensor& v, const tensor& out,
                      double scale, std::int32_t causal, span<const std::int32_t> cu_seqlens_q,
                      span<const std::int32_t> cu_seqlens_k = {}, const tensor* lse = nullptr) {
  mla_attention_args args = detail::attention_args(q, k, v, out, scale, causal, lse);
  args.num_requests = detail::requests(cu_seqlens_q, "cu_seqlens_q");
  if (!cu_seqlens_k.empty() &&
      detail::requests(cu_seqlens_k, "cu_seqlens_k") != args.num_requests) {
    throw error(MLA_ERROR_INVALID_ARGUMENT,
                "cu_seqlens_k: must have as many entries as cu_seqlens_q");
  }
  args.cu_seqlens_q = cu_seqlens_q.data();
  args.cu_seqlens_k = cu_seqlens_k.empty() ? nullptr : cu_seqlens_k.data();
  attention(args);
}

/// Bytes of workspace that the call needs at the present number of threads.
inline std::int64_t attention_workspace_size(const mla_attention_args& args) {
  std::int64_t bytes = 0;
  check(mla_attention_workspace_size(&args, &bytes));
  return bytes;
}

// --- The lightning indexer --------------------------------------------------

inline void index_store(const mla_index_store_args& args) { check(mla_index_store(&args)); }

/// Token i goes to slot slot_mapping[i] of `index_cache`, nowhere if that is -1.
inline void index_store(const tensor& k, const tensor& index_cache,
                        span<const std::int64_t> slot_mapping,
                        std::int32_t format = MLA_INDEX_FORMAT_PLAIN,
                        std::int32_t scale_format = MLA_INDEX_SCALE_FP32, bool hadamard = false) {
  mla_index_store_args args = MLA_INDEX_STORE_ARGS_INIT;
  args.format = format;
  args.scale_format = scale_format;
  args.hadamard = hadamard ? 1 : 0;
  args.k = &k;
  args.slot_mapping = slot_mapping.data();
  args.num_slots = static_cast<std::int64_t>(slot_mapping.size());
  args.index_cache = &index_cache;
  index_store(args);
}

inline void index_select(const mla_index_select_args& args) { check(mla_index_select(&args)); }

/// Bytes of workspace that the call needs at the present number of threads.
inline std::int64_t index_workspace_size(const mla_index_select_args& args) {
  std::int64_t bytes = 0;
  check(mla_index_workspace_size(&args, &bytes));
  return bytes;
}

// --- Backends of your own ---------------------------------------------------

/// Where a backend reports why it cannot serve a configuration.
class reasons {
 public:
  reasons(mla_reason_sink sink, void* context) noexcept : sink_(sink), context_(context) {}
  void add(const char* reason) { sink_(context_, reason); }
  void add(const std::string& reason) { sink_(context_, reason.c_str()); }

 private:
  mla_reason_sink sink_;
  void* context_;
};

namespace detail {

/// Runs `work` for a C caller: what it throws becomes a status and a message.
template <class Work>
mla_status guarded(Work&& work) noexcept {
  try {
    work();
    return MLA_OK;
  } catch (const error& failure) {
    mla_set_last_error_message(failure.what());
    // What throws has failed, whatever it says.
    return failure.status() == MLA_OK ? MLA_ERROR_INTERNAL : failure.status();
  } catch (const std::bad_alloc& failure) {
    mla_set_last_error_message(failure.what());
    return MLA_ERROR_OUT_OF_MEMORY;
  } catch (const std::invalid_argument& failure) {
    mla_set_last_error_message(failure.what());
    return MLA_ERROR_INVALID_ARGUMENT;
  } catch (const std::exception& failure) {
    mla_set_last_error_message(failure.what());
    return MLA_ERROR_INTERNAL;
  } catch (...) {
    mla_set_last_error_message("the backend threw something that is no std::exception");
    return MLA_ERROR_INTERNAL;
  }
}

template <class T, class = void>
struct has_backend_name : std::false_type {};
template <class T>
struct has_backend_name<T, std::void_t<decltype(T::backend_name())>> : std::true_type {};

template <class T, class = void>
struct has_validate : std::false_type {};
template <class T>
struct has_validate<T, std::void_t<decltype(T::validate(
                           std::declval<const mla_selector_config&>(), std::declval<reasons&>()))>>
    : std::true_type {};

template <class T, class = void>
struct has_prepare_metadata : std::false_type {};
template <class T>
struct has_prepare_metadata<T, std::void_t<decltype(std::declval<T&>().prepare_metadata(
                                   std::declval<const mla_prefill_metadata&>()))>>
    : std::true_type {};

template <class T, class = void>
struct has_supports_out : std::false_type {};
template <class T>
struct has_supports_out<T, std::void_t<decltype(std::declval<const T&>().supports_out())>>
    : std::true_type {};

template <class T, class = void>
struct has_supports_quant_output : std::false_type {};
template <class T>
struct has_supports_quant_output<
    T, std::void_t<decltype(std::declval<const T&>().supports_quant_output(std::int32_t{}))>>
    : std::true_type {};

template <class T, class = void>
struct has_workspace_size : std::false_type {};
template <class T>
struct has_workspace_size<T, std::void_t<decltype(std::declval<const T&>().workspace_size())>>
    : std::true_type {};

template <class T, class = void>
struct has_supports_device : std::false_type {};
template <class T>
struct has_supports_device<
    T, std::void_t<decltype(T::supports_device(std::int32_t{}, std::int32_t{}))>>
    : std::true_type {};

/// The vtable of a class; functions it lacks stay NULL, which the library
/// reads as the default.
template <class T>
mla_backend_vtable vtable_of() noexcept {
  mla_backend_vtable table = MLA_BACKEND_VTABLE_INIT;
  if constexpr (has_backend_name<T>::value) table.backend_name = T::backend_name();
  if constexpr (has_validate<T>::value) {
    table.validate = [](void*, const mla_selector_config* config, mla_reason_sink sink,
                        void* sink_context) -> mla_status {
      return guarded([&] {
        reasons sent(sink, sink_context);
        T::validate(*config, sent);
      });
    };
  }
  table.create = [](void*, const mla_backend_config* config, void** instance) -> mla_status {
    return guarded([&] { *instance = new T(*config); });
  };
  table.destroy = [](void*, void* instance) { delete static_cast<T*>(instance); };
  if constexpr (has_prepare_metadata<T>::value) {
    table.prepare_metadata = [](void*, void* instance,
                                const mla_prefill_metadata* metadata) -> mla_status {
      return guarded([&] { static_cast<T*>(instance)->prepare_metadata(*metadata); });
    };
  }
  table.run_prefill_new_tokens = [](void*, void* instance,
                                    const mla_new_tokens_args* args) -> mla_status {
    return guarded([&] { static_cast<const T*>(instance)->run_prefill_new_tokens(*args); });
  };
  table.run_prefill_context_chunk = [](void*, void* instance,
                                       const mla_context_chunk_args* args) -> mla_status {
    return guarded([&] { static_cast<const T*>(instance)->run_prefill_context_chunk(*args); });
  };
  if constexpr (has_supports_out<T>::value) {
    table.supports_out = [](void*, void* instance) -> std::int32_t {
      bool supports = false;
      guarded([&] { supports = static_cast<const T*>(instance)->supports_out(); });
      return supports ? 1 : 0;
    };
  }
  if constexpr (has_supports_quant_output<T>::value) {
    table.supports_quant_output = [](void*, void* instance, std::int32_t dtype) -> std::int32_t {
      bool supports = false;
      guarded([&] { supports = static_cast<const T*>(instance)->supports_quant_output(dtype); });
      return supports ? 1 : 0;
    };
  }
  if constexpr (has_workspace_size<T>::value) {
    table.workspace_size = [](void*, void* instance) -> std::int64_t {
      std::int64_t bytes = -1;
      guarded([&] { bytes = static_cast<const T*>(instance)->workspace_size(); });
      return bytes;
    };
  }
  if constexpr (has_supports_device<T>::value) {
    table.supports_device = [](void*, std::int32_t type, std::int32_t id) -> std::int32_t {
      bool supports = false;
      guarded([&] { supports = T::supports_device(type, id); });
      return supports ? 1 : 0;
    };
  }
  return table;
}

}  // namespace detail

/// Adds `T` to the registry as `name`, for every language in the process.
///
/// T is made from a `const mla_backend_config&` and has
///
///   void run_prefill_new_tokens(const mla_new_tokens_args&) const;
///   void run_prefill_context_chunk(const mla_context_chunk_args&) const;
///
/// (const, because one object may be run by several threads at once), and may
/// have
///
///   static const char* backend_name();
///   static void validate(const mla_selector_config&, mla::reasons&);
///   void prepare_metadata(const mla_prefill_metadata&);
///   bool supports_out() const;
///   bool supports_quant_output(std::int32_t dtype) const;
///   std::int64_t workspace_size() const;
///   static bool supports_device(std::int32_t type, std::int32_t id);
///
/// Without the last it is made for the CPU alone.
///
/// What these throw reaches the caller as a status and a message: an mla::error
/// its own, std::bad_alloc out of memory, std::invalid_argument invalid
/// argument, anything else internal. What workspace_size() throws is internal
/// always, and support that cannot be told counts as none.
template <class T>
void register_backend(const char* name, const char* class_path = nullptr) {
  const mla_backend_vtable table = detail::vtable_of<T>();
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  registration.class_path = class_path;
  registration.vtable = &table;
  check(mla_register_backend(name, &registration));
}

/// Puts `T` behind an existing member until mla_clear_override().
template <class T>
void override_backend(const char* name, const char* class_path = nullptr) {
  const mla_backend_vtable table = detail::vtable_of<T>();
  mla_backend_registration registration = MLA_BACKEND_REGISTRATION_INIT;
  registration.class_path = class_path;
  registration.vtable = &table;
  check(mla_override_backend(name, &registration));
}

}  // namespace mla

#endif  // MLA_PREFILL_HPP
