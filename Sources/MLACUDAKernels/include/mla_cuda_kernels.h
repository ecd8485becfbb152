/*
 * What a CUDA kernel is handed, and what it is launched with. Read by Swift, by the kernels
 * themselves (../Kernels, CUDA C++) and by the model on which they are tested, so it needs no
 * header and says every size itself.
 *
 * Each struct is its kernel's one parameter, by value, in the 4096 bytes that a launch has for
 * parameters. A batch's offsets travel in it: a launch copies nothing to the device, needs
 * no scratch memory there and can be captured into a graph.
 */
#ifndef MLA_CUDA_KERNELS_H
#define MLA_CUDA_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

/** Rows of [tokens, heads, dimension] on the device, the dimension contiguous. */
typedef struct mla_cuda_rows {
  void *data;
  /** In elements. */
  long long token_stride;
  long long head_stride;
} mla_cuda_rows;

/** [heads, tokens] of fp32 on the device, tokens contiguous. */
typedef struct mla_cuda_lse {
  /** May be NULL: not wanted. */
  float *data;
  /** In elements. */
  long long head_stride;
} mla_cuda_lse;

/* ---- attention ---------------------------------------------------------- */

enum {
  /** Rows of q that a block works on. */
  MLA_CUDA_TILE_QUERIES = 64,
  /** Requests of a launch; more of them take more launches. */
  MLA_CUDA_LAUNCH_REQUESTS = 128
};

/** Rows of one request. Causal: the last query sees all keys, each before it one less
    (so that key_count >= query_count); a query that sees none gives 0 and an lse of -inf. */
typedef struct mla_cuda_request {
  /** Tiles of the requests before this one in the launch. */
  int first_tile;
  /** Its first row of q and out, and how many. */
  int query_row;
  int query_count;
  /** Its first row of k and v, and how many. */
  int key_row;
  int key_count;
} mla_cuda_request;

/** Grid: (tiles of all requests, heads). Of a request's tiles the last, which sees the most
    keys, comes first. */
typedef struct mla_cuda_attention {
  mla_cuda_rows q, k, v, out;
  mla_cuda_lse lse;
  /** scale * log2(e). */
  float scale_log2;
  /** Results are multiplied by it before they are rounded: 1, or 1 / output_scale. */
  float out_multiplier;
  /** MLA_DTYPE_* of mla_prefill.h: what `out` is of. */
  int out_type;
  int is_causal;
  int request_count;
  int reserved;
  mla_cuda_request requests[MLA_CUDA_LAUNCH_REQUESTS];
} mla_cuda_attention;

#ifndef __CUDACC__
/** To write them one by one: Swift reads an array in a struct as a tuple. */
static inline mla_cuda_request *mla_cuda_requests(mla_cuda_attention *parameter) {
  return parameter->requests;
}
#endif

/* ---- attention by tensor maps (Kernels/AttentionTiles.cuh; sm_90a) ------- */

/** As cuTensorMapEncodeTiled makes it: numbers of two bytes, no interleaving, swizzled by 128
    bytes, out of bounds zero. Dimensions: the head's, heads, rows of the tensor; a box of
    64 x 1 x MLA_CUDA_WIDE_TILE. */
typedef struct mla_cuda_tensor_map {
  unsigned long long opaque[16];
} __attribute__((aligned(64))) mla_cuda_tensor_map;

enum {
  /** Rows of q that a block works on, and of k and v at a time. */
  MLA_CUDA_WIDE_TILE = 128,
  /** Of a block. */
  MLA_CUDA_WIDE_THREADS = 384
};

/** As mla_cuda_attention, tiles being of MLA_CUDA_WIDE_TILE queries. Maps take tensors whose
    addresses and strides are multiples of 16 bytes. */
typedef struct mla_cuda_attention_tiles {
  mla_cuda_tensor_map q, k, v;
  mla_cuda_attention attention;
} mla_cuda_attention_tiles;

/* ---- converting --------------------------------------------------------- */

/** Grid: (tokens, heads); kernels mla_convert_<bf16|fp16|fp32> by the dtype of `from`. */
typedef struct mla_cuda_convert {
  mla_cuda_rows from, to;
  /** Elements of a row. */
  int width;
  /** MLA_DTYPE_* of mla_prefill.h. */
  int to_type;
  float multiplier;
  int reserved;
} mla_cuda_convert;

enum {
  /** Of a block, which has no dynamic shared memory. */
  MLA_CUDA_CONVERT_THREADS = 128
};

/* ---- merging ------------------------------------------------------------ */

/** Grid: (tokens / MLA_CUDA_MERGE_TOKENS rounded up, heads); see mla_merge_args. */
typedef struct mla_cuda_merge {
  mla_cuda_rows prefix, suffix, out;
  mla_cuda_lse prefix_lse, suffix_lse, out_lse;
  int token_count;
  int dimension;
  /** Tokens from this one on are the suffix's alone. */
  int tokens_with_context;
  float out_multiplier;
  /** MLA_DTYPE_* of mla_prefill.h: what `out` is of. */
  int out_type;
  int reserved;
} mla_cuda_merge;

enum {
  /** Rows of a head that a block merges. */
  MLA_CUDA_MERGE_TOKENS = 8,
  /** Of a block, which has no dynamic shared memory. */
  MLA_CUDA_MERGE_THREADS = 128
};

/* ---- caching ------------------------------------------------------------ */

/** Rows of one kind in a paged cache, one in each slot. */
typedef struct mla_cuda_cache_rows {
  /** Of the first block's first slot. */
  void *data;
  /** In bytes: of a block, and of a slot within one. */
  long long block_stride;
  long long slot_stride;
  /** In elements; 0: there are none. */
  int width;
  /** MLA_DTYPE_* of mla_prefill.h. */
  int dtype;
} mla_cuda_cache_rows;

/** Grid: (tokens); kernels mla_concat_and_cache_<bf16|fp16|fp32> by the dtype of the tokens;
    see mla_concat_and_cache_args. */
typedef struct mla_cuda_concat_and_cache {
  /** [tokens, width]; head strides are 0. Without rope's data the cache's rope gets zeros. */
  mla_cuda_rows latents, rope;
  /** On the device, one for each token. Not below `slot_count`, or below 0: the token is
      left out. */
  const long long *slots;
  long long slot_count;
  mla_cuda_cache_rows cached_latents, cached_rope;
  int block_size;
  /** Values are multiplied by it before they become fp8: 1 / cache_scale. */
  float multiplier;
  /** MLA_CACHE_FORMAT_FP8_DS_MLA: from a slot's latents to its scales, in bytes, latents being
      divided by them; else -1. */
  int scales_offset;
  int reserved;
} mla_cuda_concat_and_cache;

/** A paged cache and where in it requests' tokens are. */
typedef struct mla_cuda_paged_cache {
  mla_cuda_cache_rows latents, rope;
  /** On the device, rows of table_width entries. NULL: row i is block i alone. */
  const int *block_table;
  /** In entries. */
  long long block_table_stride;
  int table_width;
  int block_count;
  /** At least 1. */
  int block_size;
  /** Multiplies values of a plain fp8 cache. */
  float multiplier;
  /** MLA_CACHE_FORMAT_FP8_DS_MLA: from a slot's latents to the scales that multiply them, in
      bytes; else -1. */
  int scales_offset;
  int reserved;
} mla_cuda_paged_cache;

/** Grid: (tokens / MLA_CUDA_GATHER_TOKENS rounded up); kernels mla_gather_cache_<bf16|fp16|fp32>
    by the dtype of the rows; see mla_gather_cache_args. Whatever is on the device may hold any
    number. */
typedef struct mla_cuda_gather_cache {
  /** [tokens, width]; head strides are 0. Without data they are not written. */
  mla_cuda_rows latents, rope;
  /** Row i of its table is request i's. */
  mla_cuda_paged_cache cache;
  /** On the device, [request_count + 1] and [request_count]; seq_starts may be NULL. */
  const int *cu_seq_lens;
  const int *seq_starts;
  /** At least 1. */
  int request_count;
  int token_count;
} mla_cuda_gather_cache;

enum {
  /** Of a launch; more of them take more launches. */
  MLA_CUDA_LAUNCH_SPANS = 128
};

/** Tokens of one request that follow each other, all in the cache or all new. */
typedef struct mla_cuda_layer_span {
  /** Tokens of the spans before this one in the launch. */
  int first;
  /** Where its first token's latents and rotary part go. */
  int row;
  /** Of the block table; -1: new tokens. */
  int table_row;
  int reserved;
  /** Of its first token: from the request's first block on; of new tokens their row. */
  long long position;
} mla_cuda_layer_span;

/** What a layer's keys are made of. Grid: (tokens / MLA_CUDA_GATHER_TOKENS rounded up); kernels
    mla_gather_layer_tokens_<bf16|fp16> by the layer's dtype. Entries of the table may be any
    number: what is in no block is not written. */
typedef struct mla_cuda_layer_tokens {
  /** [tokens, width] of the widths that the cache has; head strides are 0. Rope may have no
      data: there are no rotary parts then. */
  mla_cuda_rows latents, rope, new_latents, new_rope;
  mla_cuda_paged_cache cache;
  int span_count;
  int token_count;
  mla_cuda_layer_span spans[MLA_CUDA_LAUNCH_SPANS];
} mla_cuda_layer_tokens;

enum {
  /** Of a block, which has no dynamic shared memory. */
  MLA_CUDA_CACHE_THREADS = 128,
  /** Tokens that a block gathers, a warp each. */
  MLA_CUDA_GATHER_TOKENS = 4
};

/* ---- projection --------------------------------------------------------- */

/** out [row_count, column_count] = in [row_count, depth] * weights [column_count, depth]
    transposed, rounded to their dtype; kernels mla_project_<bf16|fp16>. Grid: (rows, columns),
    each / MLA_CUDA_PROJECTION_TILE rounded up. Head strides are 0. */
typedef struct mla_cuda_projection {
  mla_cuda_rows in, weights;
  /** Of rows that begin at multiples of 16 bytes. */
  mla_cuda_rows out;
  int row_count;
  /** A multiple of 8. */
  int column_count;
  /** A multiple of 64, above 0. */
  int depth;
  int reserved;
} mla_cuda_projection;

enum {
  /** Rows, and columns, of `out` that a block works on. */
  MLA_CUDA_PROJECTION_TILE = 128,
  MLA_CUDA_PROJECTION_THREADS = 128,
  /** Dynamic shared memory. */
  MLA_CUDA_PROJECTION_SHARED = 2 * 2 * 128 * 64 * 2
};

/* ---- keys --------------------------------------------------------------- */

/** keys [tokens, head_count, nope_width + rope_width] of nope [tokens, head_count, nope_width]
    and rope [tokens, rope_width], all of 2 bytes an element, widths multiples of 8, rows at
    multiples of 16 bytes. Grid: (tokens). */
typedef struct mla_cuda_keys {
  mla_cuda_rows nope, rope, keys;
  int head_count;
  int nope_width;
  /** May be 0, rope is not read then. */
  int rope_width;
  int reserved;
} mla_cuda_keys;

enum {
  /** Of a block, which has no dynamic shared memory. */
  MLA_CUDA_KEYS_THREADS = 128
};

/* ---- numbers of the host's ------------------------------------------------ */

enum {
  /** Of a launch; more of them take more launches. */
  MLA_CUDA_UPLOAD_NUMBERS = 1000,
  /** Of a block, which has no dynamic shared memory. */
  MLA_CUDA_UPLOAD_THREADS = 128
};

/** Grid: (1). Numbers that another library wants in memory of the device. */
typedef struct mla_cuda_upload {
  int *to;
  int count;
  int reserved;
  int numbers[MLA_CUDA_UPLOAD_NUMBERS];
} mla_cuda_upload;

// Of the host alone.
#ifndef __CUDACC__

/** To write them one by one: Swift reads an array in a struct as a tuple. */
static inline int *mla_cuda_upload_numbers(mla_cuda_upload *parameter) {
  return parameter->numbers;
}
static inline mla_cuda_layer_span *mla_cuda_layer_spans(mla_cuda_layer_tokens *parameter) {
  return parameter->spans;
}

/* ---- kernels by name ---------------------------------------------------- */

/** A kernel for MLA attention of one dtype and head dimensions. */
typedef struct mla_cuda_attention_kernel {
  /** Its symbol. */
  const char *name;
  /** MLA_DTYPE_BF16 or MLA_DTYPE_FP16 of mla_prefill.h. */
  int dtype;
  int qk_head_dim;
  int v_head_dim;
  int threads;
  /** Dynamic shared memory. */
  int shared_bytes;
} mla_cuda_attention_kernel;

/** All that there are; see attention_kernels.c. Stores how many. */
const mla_cuda_attention_kernel *mla_cuda_attention_kernels(int *count);

/** Those that take mla_cuda_attention_tiles, of sm_90a. */
const mla_cuda_attention_kernel *mla_cuda_attention_tile_kernels(int *count);

/* ---- code --------------------------------------------------------------- */

/** Machine code for GPUs of one major capability, from one minor capability on. */
typedef struct mla_cuda_image {
  /** Capability * 10: 80, 90, 100, 120. */
  int architecture;
  const unsigned char *bytes;
  long long size;
} mla_cuda_image;

/** What `make cubins` made before this was compiled; none where it was not run. Stores how
    many. */
const mla_cuda_image *mla_cuda_images(int *count);

/** The kernels' source, for NVRTC: the first is the program, the others its headers. */
typedef struct mla_cuda_source {
  const char *name;
  /** NUL-terminated. */
  const char *text;
} mla_cuda_source;

/** Stores how many. */
const mla_cuda_source *mla_cuda_sources(int *count);

#endif

#ifdef __cplusplus
}
#endif

#endif
