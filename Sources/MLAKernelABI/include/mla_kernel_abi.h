// The contract between schedules and kernels: what a kernel is handed, and the
// table that says which kernel serves a dtype.
//
// A kernel knows one head of one request. It is handed raw rows, never a batch,
// and trusts what it is handed: everything was validated above. All strides are
// in elements. Results depend on a kernel's arguments alone, never on the
// thread that runs it, so that a request has the same bits in any batch.
#ifndef MLA_KERNEL_ABI_H
#define MLA_KERNEL_ABI_H

#include <stdint.h>

// What a kernel is handed says in words what may be NULL; of a table Swift must know.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wnullability-completeness"

// Element formats; the values of MLA_DTYPE_* in mla_prefill.h.
enum {
  MLA_FORMAT_FLOAT32 = 1,
  MLA_FORMAT_FLOAT16 = 2,
  MLA_FORMAT_BFLOAT16 = 3,
  MLA_FORMAT_FLOAT8_E4M3FN = 4
};

// A partial result: attention of rows to some of their keys, to which that to others
// can be added. A row is v_head_dim fp32 and three more:
//
//   out[v_head_dim]  sum over keys j of 2^(score_j - reference) * value_j
//   reference        near the largest score, in powers of two; -inf without keys
//   sum, rest        together the sum of 2^(score_j - reference); `rest` is what
//                    fp32 has no room for in `sum`
//
// As out_format of mla_attend_args it stands for rows of these.
enum { MLA_FORMAT_PARTIAL = -1, MLA_PARTIAL_STATISTICS = 3 };

// Instruction-set families; the values of MLA_ISA_* in mla_prefill.h.
enum {
  MLA_FAMILY_PORTABLE = 1,
  MLA_FAMILY_AVX2 = 2,
  MLA_FAMILY_AVX512 = 3,
  MLA_FAMILY_AVX512_BF16 = 4,
  MLA_FAMILY_AMX = 5,
  MLA_FAMILY_NEON = 6,
  MLA_FAMILY_NEON_BF16 = 7
};

// Head dimensions of one call.
typedef struct mla_kernel_dims {
  int64_t qk_head_dim;
  int64_t v_head_dim;
} mla_kernel_dims;

// Packs one block of keys and values into the kernel's own layout.
//
//   k  [num_keys, qk_head_dim], row stride k_stride
//   v  [num_keys, v_head_dim],  row stride v_stride
//   packed  packed_block_bytes(dims) bytes, 64-byte aligned
//
// 1 <= num_keys <= key_block. The kernel reads no row beyond num_keys and fills
// with zeros what its own attend computes on behind them.
typedef struct mla_pack_args {
  mla_kernel_dims dims;
  const void *k;
  const void *v;
  int64_t k_stride;
  int64_t v_stride;
  int64_t num_keys;
  int32_t format;
  void *packed;
  const void *next_k;  // rows that the same thread packs next, at the same strides,
  const void *next_v;  // to be fetched meanwhile; NULL: those behind these
} mla_pack_args;

// Attention of a tile of queries to a range of packed keys, with online softmax.
//
//   q    [num_queries, qk_head_dim], row stride q_stride
//   out  [num_queries, v_head_dim],  row stride out_stride, format out_format
//   lse  [num_queries] fp32, contiguous; may be NULL
//
// 1 <= num_queries <= query_tile; 0 <= key_begin <= key_end; key_begin is a
// multiple of key_block; `packed` is the block that holds key 0 and blocks
// follow each other packed_block_bytes apart. Query i attends to the keys j in
// [key_begin, key_end) with j <= i + causal_offset (INT64_MAX / 2: no mask). A
// query that attends to nothing gets out 0 and lse -inf.
typedef struct mla_attend_args {
  mla_kernel_dims dims;
  const void *q;
  int64_t q_stride;
  int64_t num_queries;
  const void *packed;
  int64_t key_begin;
  int64_t key_end;
  int64_t causal_offset;
  float scale;
  int32_t format;
  int32_t out_format;    // fp8: values are multiplied by out_multiplier and saturated
  float out_multiplier;  // of fp8 only
  void *out;
  int64_t out_stride;
  float *lse;
  void *scratch;  // scratch_bytes(dims) bytes, 64-byte aligned
  const void *next_q;  // as next_k
} mla_attend_args;

// Adds partial results of the same rows to the first of them, in their order and each
// by itself: it has no part in bits how many a call adds.
//
//   sum    partial results of num_rows rows, row stride row_stride
//   added  num_added of the same rows, likewise, added_stride from one to the next
//   out    [num_rows, v_head_dim], row stride out_stride, format out_format: the
//          result, after which sum is spent; NULL: sum is to be added to further
//   lse    [num_rows] fp32, contiguous; may be NULL
typedef struct mla_combine_args {
  int64_t num_rows;
  int64_t v_head_dim;
  float *sum;
  int64_t row_stride;
  const float *added;
  int64_t added_stride;
  int64_t num_added;
  int32_t out_format;
  float out_multiplier;  // of every value; 1 but for fp8
  void *out;
  int64_t out_stride;
  float *lse;
} mla_combine_args;

// One side of a merge: attention of some rows to some of their keys.
typedef struct mla_merge_side {
  const void *out;  // [num_rows, v_head_dim], row stride out_stride
  int64_t out_stride;
  const float *lse;  // [num_rows], contiguous
} mla_merge_side;

// Merges two results of the same rows; rows are independent, so `out` may be the same
// view as a side's.
//
// out[r] = sum_i w_i sides[i].out[r], w_i = exp(lse_i[r]) / sum_j exp(lse_j[r]).
// An lse of +inf counts as -inf; a row that is empty on both sides gives 0, -inf.
typedef struct mla_merge_rows_args {
  int64_t num_rows;
  int64_t v_head_dim;
  mla_merge_side prefix;  // all NULL: no row has one
  mla_merge_side suffix;
  int32_t format;      // of the sides' out
  int32_t out_format;    // fp8: values saturate
  float out_multiplier;  // of every value; 1 but for fp8
  void *out;
  int64_t out_stride;
  float *lse;  // [num_rows], contiguous; may be NULL
} mla_merge_rows_args;

// How one dtype's attention is computed.
typedef struct mla_attention_kernel {
  int32_t family;       // MLA_FAMILY_*: whose code this is
  int64_t query_tile;   // most queries of an attend call
  int64_t key_block;    // keys of a packed block
  int64_t (*_Nonnull packed_block_bytes)(mla_kernel_dims dims);  // a multiple of 64
  int64_t (*_Nonnull scratch_bytes)(mla_kernel_dims dims);       // a multiple of 64
  void (*_Nonnull pack)(const mla_pack_args *_Nonnull args);
  void (*_Nonnull attend)(const mla_attend_args *_Nonnull args);
  // Called on a thread before its first kernel and after its last; may be NULL.
  void (*_Nullable enter)(void);
  void (*_Nullable leave)(void);
} mla_attention_kernel;

// Attention of queries to rows that are their keys and, as far as v_head_dim goes, values
// too, each wherever it lies. A call takes in up to row_block of them; what it knows by then
// stays in `scratch` for the call with the next ones, the last of which writes partial
// results.
//
//   q     [num_queries, qk_head_dim], row stride q_stride; read by the first call alone
//   rows  addresses of num_rows rows, which go on behind qk_head_dim elements up to a
//         multiple of 32 with zeros; 0 of them are fine
//   out   partial results of num_queries rows, row stride out_stride; NULL: further rows
//         follow
//
// v_head_dim is at most qk_head_dim. Neither how rows lie nor what is fetched has a part in
// bits, how they are shared among calls has.
typedef struct mla_attend_rows_args {
  mla_kernel_dims dims;
  const void *q;
  int64_t q_stride;
  int64_t num_queries;
  const void *const *rows;
  int64_t num_rows;
  float scale;
  int32_t format;
  int32_t is_first;  // of the calls for these queries
  float *out;
  int64_t out_stride;
  void *scratch;  // scratch_bytes(dims, num_queries) bytes, 64-byte aligned
  const void *const *next;  // num_next addresses to be fetched meanwhile, next_bytes from each
  int64_t num_next;
  int64_t next_bytes;
} mla_attend_rows_args;

// How that is computed for one dtype. Called between the `enter` and `leave` of the same
// table's attention kernel.
typedef struct mla_rows_kernel {
  int32_t family;     // MLA_FAMILY_*: whose code this is
  int64_t row_block;  // most rows of a call
  int64_t (*_Nonnull scratch_bytes)(mla_kernel_dims dims, int64_t num_queries);
  void (*_Nonnull attend)(const mla_attend_rows_args *_Nonnull args);
} mla_rows_kernel;

// Rows of a matrix to bring into a projection's own layout.
//
//   rows    [num_rows, row_dim], row stride row_stride, of the kernel's dtype
//   packed  packed_tokens_bytes or packed_weights_bytes(num_rows, row_dim) bytes,
//           64-byte aligned
typedef struct mla_pack_rows_args {
  const void *rows;
  int64_t row_stride;
  int64_t num_rows;
  int64_t row_dim;
  int32_t format;
  void *packed;
} mla_pack_rows_args;

// A linear layer: out[t][w] = sum_i tokens[t][i] * weights[w][i], i < row_dim.
//
//   tokens, weights  packed by the same kernel, with these very numbers
//   out  [num_tokens, num_weights], row stride out_stride, format out_format
typedef struct mla_project_args {
  const void *tokens;
  int64_t num_tokens;
  const void *weights;
  int64_t num_weights;
  int64_t row_dim;
  int32_t out_format;
  void *out;
  int64_t out_stride;
} mla_project_args;

// A head's keys and values of one block, projected from latents straight into
// the layout that the same table's attention kernel of the dtype packs into:
// the bits of projecting into rows of the dtype, rope behind the keys, and packing.
//
//   tokens         packed latents of num_keys tokens, row_dim elements each
//   key_weights    packed, nope_dim rows; may be NULL where nope_dim is 0
//   value_weights  packed, v_head_dim rows
//   rope    [num_keys, qk_head_dim - nope_dim], row stride rope_stride, of the
//           dtype; may be NULL where nope_dim is qk_head_dim
//   packed  packed_block_bytes(dims) bytes of the attention kernel, 64-byte aligned
//
// 1 <= num_keys <= key_block.
typedef struct mla_project_block_args {
  mla_kernel_dims dims;
  const void *tokens;
  int64_t num_keys;
  int64_t row_dim;
  const void *key_weights;
  int64_t nope_dim;
  const void *value_weights;
  const void *rope;
  int64_t rope_stride;
  int32_t format;
  void *packed;
} mla_project_block_args;

// How one dtype's projections are computed. Packed tokens serve any number of
// weights, packed weights any number of tokens. A token's result depends on
// that token and the weights alone. `project` and `project_block` are called
// between the `enter` and `leave` of the same table's attention kernel.
typedef struct mla_projection_kernel {
  int32_t family;  // MLA_FAMILY_*: whose code this is
  // Multiples of 64.
  int64_t (*_Nonnull packed_tokens_bytes)(int64_t num_rows, int64_t row_dim);
  int64_t (*_Nonnull packed_weights_bytes)(int64_t num_rows, int64_t row_dim);
  void (*_Nonnull pack_tokens)(const mla_pack_rows_args *_Nonnull args);
  void (*_Nonnull pack_weights)(const mla_pack_rows_args *_Nonnull args);
  void (*_Nonnull project)(const mla_project_args *_Nonnull args);
  void (*_Nonnull project_block)(const mla_project_block_args *_Nonnull args);
} mla_projection_kernel;

// How keys score for one token's heads, the lightning indexer's way:
//
//   scores[s] = scales[s] * sum_h weights[h] * max(0, sum_d queries[h][d] * keys[s][d])
//
// d and h ascending; a NaN stays one.
//
//   keys     packed by the same kernel, with these very numbers
//   queries  [num_heads, head_dim], likewise
//   weights  [num_heads]
//   scales   room for key_block, 64-byte aligned; NULL: every scale is 1
//   scores   room for key_block, 64-byte aligned; those behind num_keys come to be anything
//
// 1 <= num_keys <= key_block. A key's score depends on that key, its scale and the token alone.
typedef struct mla_index_scores_args {
  const void *keys;
  int64_t num_keys;
  const void *queries;
  int64_t num_heads;
  int64_t head_dim;
  const float *weights;
  const float *scales;
  float *scores;
} mla_index_scores_args;

// How the scores of one dtype's queries and keys are computed. `score` is called between the
// `enter` and `leave` of the same table's attention kernel.
typedef struct mla_index_kernel {
  int32_t family;     // MLA_FAMILY_*: whose code this is
  int64_t key_block;  // most keys of a call
  // Multiples of 64.
  int64_t (*_Nonnull packed_keys_bytes)(int64_t num_rows, int64_t row_dim);
  int64_t (*_Nonnull packed_queries_bytes)(int64_t num_rows, int64_t row_dim);
  void (*_Nonnull pack_keys)(const mla_pack_rows_args *_Nonnull args);
  void (*_Nonnull pack_queries)(const mla_pack_rows_args *_Nonnull args);
  void (*_Nonnull score)(const mla_index_scores_args *_Nonnull args);
} mla_index_kernel;

// Copies rows from one format into another: out = rows * scale * multiplier,
// rounded to nearest even; fp8 saturates, and keeps NaN. Where nothing changes
// bits are copied.
//
//   scales  NULL: every scale is 1; else fp32 at any alignment, of row r the one at
//           byte r * scale_stride + 4 * g for its elements [g, g + 1) * scale_group
typedef struct mla_convert_args {
  const void *rows;
  int64_t row_stride;
  int64_t num_rows;
  int64_t row_dim;
  int32_t format;
  int32_t out_format;
  float multiplier;
  void *out;
  int64_t out_stride;
  const void *scales;
  int64_t scale_stride;  // in bytes, for scales may lie among other data; may be 0
  int64_t scale_group;
} mla_convert_args;

// Quantises rows to fp8_e4m3 in groups of elements that share a scale:
//
//   scale = the smallest power of two from max(max |x| / 448, 2^-13) on, over the
//           group, as fp32
//   out   = x / scale   rounded to nearest even, saturated
//
// A NaN stays one and has no part in the scale; infinities count as the largest
// finite fp32. `scales` is written as mla_convert_args reads it.
typedef struct mla_quantize_args {
  const void *rows;
  int64_t row_stride;
  int64_t num_rows;
  int64_t row_dim;
  int32_t format;
  void *out;
  int64_t out_stride;
  void *scales;
  int64_t scale_stride;
  int64_t scale_group;
} mla_quantize_args;

// Everything one host needs; tables are made weakest to strongest, each family
// replacing what it does better. No kernel is ever missing: to Swift a table does not
// exist before each of its fields does.
typedef struct mla_kernel_table {
  mla_attention_kernel bf16;
  mla_attention_kernel fp16;
  mla_attention_kernel fp32;
  mla_rows_kernel bf16_rows;
  mla_rows_kernel fp16_rows;
  mla_rows_kernel fp32_rows;
  mla_projection_kernel bf16_projection;
  mla_projection_kernel fp16_projection;
  mla_projection_kernel fp32_projection;
  mla_index_kernel bf16_index;
  mla_index_kernel fp16_index;
  mla_index_kernel fp32_index;
  void (*_Nonnull combine)(const mla_combine_args *_Nonnull args);
  void (*_Nonnull merge)(const mla_merge_rows_args *_Nonnull args);
  void (*_Nonnull convert)(const mla_convert_args *_Nonnull args);
  void (*_Nonnull quantize)(const mla_quantize_args *_Nonnull args);
} mla_kernel_table;

#pragma clang diagnostic pop

#endif  // MLA_KERNEL_ABI_H
