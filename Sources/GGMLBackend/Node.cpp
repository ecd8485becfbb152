#include "Node.hpp"

#include <cstring>

namespace mla_ggml {

namespace {

struct Parameters {
  float scale, max_bias, logit_softcap;
};

Parameters parameters(const ggml_tensor *op) {
  Parameters read;
  std::memcpy(&read, op->op_params, sizeof read);
  return read;
}

bool is_plain(ggml_type type) {
  return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

bool has_rows_of_floats(const ggml_tensor *tensor) {
  return tensor->nb[0] == ggml_type_size(tensor->type) &&
         (is_plain(tensor->type) || ggml_get_type_traits(tensor->type)->to_float);
}

bool has_even_strides(const ggml_tensor *tensor) {
  const size_t element = ggml_type_size(tensor->type);
  return tensor->nb[1] % element == 0 && tensor->nb[2] % element == 0 && tensor->nb[3] % element == 0;
}

/// Whether streams lie one after the other, as far apart in k as in v.
bool has_streams_of_rows(const ggml_tensor *k, const ggml_tensor *v) {
  if (k->ne[3] == 1) return true;
  const size_t rows = k->nb[3] / k->nb[1];
  return rows >= static_cast<size_t>(k->ne[1]) && rows * k->nb[1] == k->nb[3] && rows * v->nb[1] == v->nb[3];
}

/// Products below which a switch between backends costs what it saves: one row of 512 keys, 16 heads of 64.
constexpr int64_t short_step = 1 << 20;

bool is_short_step(const ggml_tensor *q, const ggml_tensor *k, const ggml_tensor *v) {
  return q->ne[1] == 1 && q->ne[2] * q->ne[3] * k->ne[1] * (k->ne[0] + v->ne[0]) < short_step;
}

/// The library packs a key before queries meet it; ggml reads it anew for each of them. bf16 packs in half
/// the time, and ggml has no instructions for it.
int64_t least_queries_of(ggml_type k) { return k == GGML_TYPE_BF16 ? 2 : 4; }

}  // namespace

Node::Node(ggml_tensor *node)
    : out(node),
      q(node->src[0]),
      k(node->src[1]),
      v(node->src[2]),
      mask(node->src[3]),
      sinks(node->src[4]),
      scale(parameters(node).scale),
      dim(q->ne[0]),
      v_dim(v->ne[0]),
      rows(q->ne[1]),
      keys(k->ne[1]),
      heads(q->ne[2]),
      kv_heads(k->ne[2]),
      streams(q->ne[3]) {}

bool Node::values_in_keys() const {
  return v->data == k->data && v->type == k->type && v_dim <= dim && v->nb[1] == k->nb[1] &&
         v->nb[2] == k->nb[2] && v->nb[3] == k->nb[3];
}

bool Node::has_plain_keys() const { return k->type == v->type && is_plain(k->type); }

ggml_type Node::call_type() const { return has_plain_keys() ? k->type : GGML_TYPE_F32; }

int64_t Node::least_queries() const { return least_queries_of(k->type); }

int64_t Node::stream_keys() const { return streams == 1 ? keys : static_cast<int64_t>(k->nb[3] / k->nb[1]); }

const char *reason_against(const ggml_tensor *op) {
  if (op->op != GGML_OP_FLASH_ATTN_EXT) return "another operation";
  const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
  const Parameters read = parameters(op);
  if (read.max_bias != 0) return "ALiBi";
  if (read.logit_softcap != 0) return "logit softcap";
  if (mask && (mask->type != GGML_TYPE_F16 || mask->ne[2] != 1)) return "a mask for each head";
  if (q->type != GGML_TYPE_F32 || q->nb[0] != sizeof(float)) return "type of q";
  if (!has_rows_of_floats(k) || !has_rows_of_floats(v)) return "type of the cache";
  if (k->ne[2] != v->ne[2] || k->ne[3] != q->ne[3] || v->ne[3] != q->ne[3]) return "shapes";
  if (!has_even_strides(q) || !has_even_strides(k) || !has_even_strides(v)) return "strides";
  if (!has_streams_of_rows(k, v)) return "strides";
  if (q->ne[1] * q->ne[2] < least_queries_of(k->type) * k->ne[2]) return few_queries;
  if (is_short_step(q, k, v)) return "a step on few keys";
  return nullptr;
}

}  // namespace mla_ggml
