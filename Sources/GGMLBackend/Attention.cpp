#include "Attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "Threads.hpp"

namespace mla_ggml {

namespace {

constexpr float no_keys = -std::numeric_limits<float>::infinity();
/// What copies of keys and values take, at most, if those of one row do not take more.
constexpr int64_t copied_bytes = 16 << 20;
/// Elements that a thread is worth waking for.
constexpr int64_t grain = 16384;

int32_t dtype_of(ggml_type type) {
  switch (type) {
    case GGML_TYPE_F16: return MLA_DTYPE_FLOAT16;
    case GGML_TYPE_BF16: return MLA_DTYPE_BFLOAT16;
    default: return MLA_DTYPE_FLOAT32;
  }
}

mla_tensor dense(void *data, int32_t dtype, int64_t rows, int64_t heads, int64_t dim) {
  mla_tensor tensor = MLA_TENSOR_INIT;
  tensor.dtype = dtype;
  tensor.data = data;
  tensor.ndim = 3;
  tensor.shape[0] = rows, tensor.shape[1] = heads, tensor.shape[2] = dim;
  tensor.strides[0] = heads * dim, tensor.strides[1] = dim, tensor.strides[2] = 1;
  return tensor;
}

/// A tensor of ggml's in place, its streams counted on.
mla_tensor in_place(const ggml_tensor *from, int64_t rows) {
  const size_t element = ggml_type_size(from->type);
  mla_tensor tensor = dense(from->data, dtype_of(from->type), rows, from->ne[2], from->ne[0]);
  tensor.strides[0] = static_cast<int64_t>(from->nb[1] / element);
  tensor.strides[1] = static_cast<int64_t>(from->nb[2] / element);
  return tensor;
}

mla_tensor table(float *data, int64_t heads, int64_t rows, int64_t stride) {
  mla_tensor tensor = MLA_TENSOR_INIT;
  tensor.dtype = MLA_DTYPE_FLOAT32;
  tensor.data = data;
  tensor.ndim = 2;
  tensor.shape[0] = heads, tensor.shape[1] = rows;
  tensor.strides[0] = stride, tensor.strides[1] = 1;
  return tensor;
}

mla_tensor rows_of(mla_tensor tensor, int64_t first, int64_t rows) {
  const int64_t element = tensor.dtype == MLA_DTYPE_FLOAT32 ? 4 : 2;
  tensor.data = static_cast<char *>(tensor.data) + first * tensor.strides[0] * element;
  tensor.shape[0] = rows;
  return tensor;
}

int64_t most_copied(const Node &node) {
  const auto element = static_cast<int64_t>(ggml_type_size(node.call_type()));
  return std::max<int64_t>(copied_bytes / (node.kv_heads * (node.dim + node.v_dim) * element), 1);
}

float *row_of(const Node &node, int64_t row, int64_t head) {
  return static_cast<float *>(node.out->data) + (row * node.heads + head) * node.v_dim;
}

}  // namespace

mla_status Attention::run(const Node &node, const Visible &visible) {
  total_rows_ = node.rows * node.streams;
  lse_ = lse_memory_.take<float>(node.heads * total_rows_);
  std::fill_n(lse_, node.heads * total_rows_, no_keys);
  written_.assign(static_cast<size_t>(total_rows_), 0);

  const mla_tensor q = queries(node);
  const Passes &passes = visible.passes;
  mla_status status = MLA_OK;
  if (node.has_plain_keys()) {
    const int64_t rows = (node.streams - 1) * node.stream_keys() + node.keys;
    const Keys all = {0, in_place(node.k, rows), in_place(node.v, rows)};
    for (const auto &pass : passes) {
      if (status == MLA_OK) status = attend(node, q, all, pass);
    }
  } else if (!passes.empty()) {
    status = in_chunks(node, passes, q);
  }
  if (status == MLA_OK) status = scattered(node, visible.scattered, q);
  if (status == MLA_OK) finish(node);
  return status;
}

/// Each row is a request of its own, to copies of the keys that it sees: of so many rows at a time that
/// memory is bounded.
mla_status Attention::scattered(const Node &node, const std::vector<ScatteredRow> &rows, const mla_tensor &q) {
  const int64_t most = most_copied(node);
  auto row = rows.begin();
  while (row < rows.end()) {
    copied_.clear();
    pass_.clear();
    int64_t keys = 0;
    do {
      append_keys(node, row->row, copied_);
      pass_.push_back({row->row, 1, keys, keys + row->keys, false});
      keys += row->keys;
      ++row;
    } while (row < rows.end() && row->row == row[-1].row + 1 && keys + row->keys <= most);
    const mla_status status = attend(node, q, copies(node, 0), pass_);
    if (status != MLA_OK) return status;
  }
  return MLA_OK;
}

/// Copies of rows `copied_` of keys and values: keys from `first` on, to those who ask for them.
Attention::Keys Attention::copies(const Node &node, int64_t first) {
  const ggml_type type = node.call_type();
  const auto count = static_cast<int64_t>(copied_.size());
  const auto copy = [&](const ggml_tensor *from, Scratch &memory) {
    const int64_t elements = count * from->ne[2] * from->ne[0];
    void *to = memory.take<char>(elements * static_cast<int64_t>(ggml_type_size(type)));
    copy_rows(from, copied_, type, to);
    return dense(to, dtype_of(type), count, from->ne[2], from->ne[0]);
  };
  Keys keys = {first, copy(node.k, k_memory_), {}};
  if (node.values_in_keys()) {
    keys.v = keys.k;
    keys.v.shape[2] = node.v_dim;
  } else {
    keys.v = copy(node.v, v_memory_);
  }
  return keys;
}

/// q, of the type that keys are handed over in.
mla_tensor Attention::queries(const Node &node) {
  const ggml_type type = node.call_type();
  const bool rows_go_on = node.streams == 1 || node.q->nb[3] == static_cast<size_t>(node.rows) * node.q->nb[1];
  if (type == GGML_TYPE_F32 && rows_go_on) return in_place(node.q, total_rows_);
  const int64_t elements = total_rows_ * node.heads * node.dim;
  void *memory = q_memory_.take<char>(elements * static_cast<int64_t>(ggml_type_size(type)));
  convert_queries(node, type, memory);
  return dense(memory, dtype_of(type), total_rows_, node.heads, node.dim);
}

/// Keys and values of other types become floats, so many at a time that memory is bounded.
mla_status Attention::in_chunks(const Node &node, const Passes &passes, const mla_tensor &q) {
  const int64_t most = most_copied(node);
  for (int64_t stream = 0; stream < node.streams; ++stream) {
    const int64_t first = stream * node.stream_keys(), end = first + node.keys;
    for (int64_t begin = first; begin < end; begin += most) {
      const int64_t count = std::min(most, end - begin);
      copied_.resize(static_cast<size_t>(count));
      std::iota(copied_.begin(), copied_.end(), begin);
      const Keys chunk = copies(node, begin);
      for (const auto &pass : passes) {
        pass_.clear();
        for (const Request &request : pass) clip(request, begin, begin + count, pass_);
        const mla_status status = attend(node, q, chunk, pass_);
        if (status != MLA_OK) return status;
      }
    }
  }
  return MLA_OK;
}

/// One call for requests that follow each other, as long as all are causal or none.
mla_status Attention::attend(const Node &node, const mla_tensor &q, const Keys &keys,
                             const std::vector<Request> &pass) {
  const Request *begin = pass.data(), *const last = begin + pass.size();
  while (begin < last) {
    // A single row sees the same either way.
    const Request *kind = begin;
    const Request *end = begin + 1;
    for (; end < last; ++end) {
      if (kind->rows == 1) kind = end;
      if (end->rows > 1 && end->causal != kind->causal) break;
    }
    const mla_status status = call(node, q, keys, begin, end);
    if (status != MLA_OK) return status;
    begin = end;
  }
  return MLA_OK;
}

mla_status Attention::call(const Node &node, const mla_tensor &q, const Keys &keys, const Request *begin,
                           const Request *end) {
  const int64_t first = begin->first_row, rows = end[-1].first_row + end[-1].rows - first;
  bool causal = false;
  cu_seqlens_q_.assign(1, 0);
  k_begin_.clear();
  k_count_.clear();
  for (const Request *it = begin; it < end; ++it) {
    causal = causal || (it->causal && it->rows > 1);
    if (cu_seqlens_q_.back() < it->first_row - first) {  // rows in between see nothing
      cu_seqlens_q_.push_back(static_cast<int32_t>(it->first_row - first));
      k_begin_.push_back(0);
      k_count_.push_back(0);
    }
    cu_seqlens_q_.push_back(static_cast<int32_t>(it->first_row + it->rows - first));
    k_begin_.push_back(static_cast<int32_t>(it->first_key - keys.first));
    k_count_.push_back(static_cast<int32_t>(it->end_key - it->first_key));
  }
  const auto own = written_.begin() + first;
  const bool merging = std::find(own, own + rows, 1) != own + rows;
  const mla_tensor sum = rows_of(
      dense(node.out->data, MLA_DTYPE_FLOAT32, total_rows_, node.heads, node.v_dim), first, rows);
  const mla_tensor sum_lse = table(lse_ + first, node.heads, rows, total_rows_);
  mla_tensor out = sum, lse = sum_lse;
  if (merging) {
    auto *part = part_out_memory_.take<float>(rows * node.heads * node.v_dim);
    out = dense(part, MLA_DTYPE_FLOAT32, rows, node.heads, node.v_dim);
    lse = table(part_lse_memory_.take<float>(rows * node.heads), node.heads, rows, rows);
  }
  const mla_tensor own_q = rows_of(q, first, rows);
  mla_attention_args args = MLA_ATTENTION_ARGS_INIT;
  args.causal = causal ? MLA_CAUSAL_END : MLA_CAUSAL_NONE;
  args.scale = static_cast<double>(node.scale);
  args.q = &own_q, args.k = &keys.k, args.v = &keys.v, args.out = &out, args.lse = &lse;
  args.num_requests = static_cast<int32_t>(k_begin_.size());
  args.cu_seqlens_q = cu_seqlens_q_.data();
  args.k_begin = k_begin_.data(), args.k_count = k_count_.data();
  mla_status status = mla_attention(&args);
  if (status == MLA_OK && merging) {
    mla_merge_args merge = MLA_MERGE_ARGS_INIT;
    merge.output = merge.prefix_output = &sum, merge.output_lse = merge.prefix_lse = &sum_lse;
    merge.suffix_output = &out, merge.suffix_lse = &lse;
    status = mla_merge_attn_states(&merge);
  }
  if (status == MLA_OK) std::fill(own, own + rows, 1);
  return status;
}

/// Rows without keys are 0; a sink takes its part of each row's probability.
void Attention::finish(const Node &node) {
  const auto *sinks = node.sinks ? static_cast<const float *>(node.sinks->data) : nullptr;
  if (!sinks && std::find(written_.begin(), written_.end(), 0) == written_.end()) return;
  in_parallel(total_rows_, grain / (node.heads * node.v_dim) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < node.heads; ++head) {
        float *out = row_of(node, row, head);
        if (!written_[static_cast<size_t>(row)]) {
          std::fill_n(out, node.v_dim, 0.0F);
        } else if (sinks) {
          const float rest = 1 / (1 + std::exp(sinks[head] - lse_[head * total_rows_ + row]));
          for (int64_t d = 0; d < node.v_dim; ++d) out[d] *= rest;
        }
      }
    }
  });
}

}  // namespace mla_ggml
