/*
 * mla_prefill.h - multi-head latent attention (MLA) prefill for any engine.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The whole C ABI of libmlaprefill, in the order in which an engine calls it:
 *
 *    1. versions, status codes, the last error
 *    2. the host: CPU, kernels, threads, log, memory
 *    3. tensors
 *    4. the registry: which backends exist, what overrides them
 *    5. the selector: which backend serves this configuration
 *    6. metadata of a batch, and how its context is cut into chunks
 *    7. backend objects: create, prepare_metadata, run, destroy
 *    8. merging partial attention states
 *    9. backends of your own: the vtable
 *   10. the whole layer: from latents and a paged cache to the output
 *   11. attention in one call, without a backend
 *   12. the lightning indexer: which keys sparse attention looks at
 *
 * The names are those of vLLM's `vllm.v1.attention.backends.mla.prefill`
 * (0.33), whose contracts the library keeps.
 *
 * Conventions
 * -----------
 * Status.     Every call that can fail returns an `mla_status`; MLA_OK is 0.
 *             After any other value `mla_last_error_message()` names the field,
 *             its value and the rule that it broke. A call that fails has
 *             written nothing to its outputs; a registered backend's run that
 *             fails may have. No call aborts, exits, prints or
 *             installs a signal handler, and neither does loading the library. Of
 *             the environment it reads MLA_* alone.
 * Callbacks.  What a caller hands in as a function returns, also where it fails: no
 *             C++ exception and no longjmp() may leave it.
 * Sizes.      A batch has at most 2^20 requests, 2^24 pairs of request and head,
 *             and 2^44 elements of out. What is planned for it, for each dtype that is
 *             run, takes less than 2 KiB for each of its requests, those of announced
 *             chunks likewise, whatever their heads and tokens, and about a millisecond
 *             for a thousand of them; with thousands of heads on 1024 threads up to 40,
 *             for a layer 100 milliseconds. Fitting a layer into a workspace_bound plans
 *             several times.
 * Structs.    A struct that the caller fills begins with `struct_size`, set by
 *             the matching *_INIT macro to the size the caller was compiled
 *             with; sizes that no header can have had are refused. Structs only
 *             ever grow at the end: a tail that an older caller lacks means the
 *             default (zero); a tail that this library does not know must be zero,
 *             and so must `reserved`.
 * Ownership.  Pointers handed in are borrowed for the duration of the call
 *             unless a comment says otherwise. The caller owns every output
 *             tensor and workspace. A `const char *` handed out stays valid
 *             for the life of the process unless a comment says otherwise.
 * Threads.    Every function may be called from any thread at any time. One
 *             backend object may be run from several threads at once on
 *             different outputs. mla_backend_destroy() must not race with
 *             another call on the same object. The last error belongs to the
 *             calling thread. A call needs at most 128 KiB of its thread's stack,
 *             beside what functions of the host's need that it calls.
 * Fork.       fork() waits a moment for the other threads' calls to be between two
 *             steps. The child finds settings, registry and objects as they were and
 *             may use all of them at once, with threads of its own. What other
 *             threads had under way is not carried on there: an output is as far as
 *             it came, the memory and the objects of those calls stay taken. Fork
 *             handlers (pthread_atfork) may call the library; one that waits for a
 *             lock which is held during calls is registered after it was loaded.
 *             A child forked while another thread loads the library has half of it.
 * Arithmetic. The calling thread's rounding mode, flushing of subnormal numbers and
 *             unmasked floating-point exceptions do not bear on results. They, and
 *             the exceptions that it has noted, are after a call what they were
 *             before, and callbacks find them so; what a callback changes of them
 *             ends with it.
 * Strides.    In elements, never bytes. The last dimension of every tensor must
 *             have stride 1; other strides are honoured without a copy and may
 *             not be negative.
 * Overlap.    Where tensors must not overlap, no byte may belong to an element of
 *             both; they may interleave, as columns of one buffer do. For views
 *             of tens of thousands of rows whose strides have nothing to do with
 *             each other, lying among each other counts as overlapping.
 * Alignment.  Tensor data must be aligned to its element size, nothing more.
 * NULL.       A pointer must not be NULL unless its comment says "may be NULL".
 * Device.     Every tensor carries its DLPack device and every run a stream. A backend
 *             object is made for one device, which its configuration names, and all
 *             tensors of its runs must be there; a merge runs where its output is,
 *             mla_concat_and_cache_mla() and mla_gather_and_maybe_dequant_cache() where
 *             the cache is, on the CPU or a CUDA device.
 *             A layer runs where its configuration says, on the CPU or a CUDA device;
 *             mla_attention() and the indexer on the CPU. There the stream must be NULL; other devices
 *             give MLA_ERROR_UNSUPPORTED_HARDWARE.
 *             The library's own FLASH_ATTN, FLASHINFER, TRTLLM_RAGGED and TOKENSPEED_MLA
 *             run on CUDA devices, too, with bf16 and fp16 (section 7). A registered
 *             backend may run on CUDA and ROCm (section 9): it gets tensors, workspace
 *             and stream as they came. The host reads and writes no memory of
 *             a device; rules for addresses, overlaps too, are checked by their numbers.
 *             Whatever is no tensor, workspace or stream, or said to be of a device, is
 *             host memory: structs, offsets and scales.
 * CUDA.       A call on a CUDA device puts its work on the caller's stream and returns; it
 *             may be captured into a graph, which keeps the batch it was captured with. It
 *             takes no memory of the device, but a layer's without a workspace and one that
 *             cuDNN serves (below), in the stream's order, and at most 65535 heads. It runs in
 *             the device's primary context, as all that uses CUDA's runtime does; the calling
 *             thread's own is in place afterwards. The driver (of CUDA 12.0 or later)
 *             is loaded by the first call that names a CUDA device; what is missing, it, a
 *             device of capability 8.0 or later or kernels for it, gives
 *             MLA_ERROR_UNSUPPORTED_HARDWARE and says what to install. What else the driver
 *             refuses gives MLA_ERROR_OUT_OF_MEMORY or MLA_ERROR_INTERNAL with its name for
 *             it. A fault that shows only when the work is done is for the stream's owner to
 *             find.
 * cuDNN.      cuDNN 9.24 to 9.28, where there is one, carries out attention on CUDA devices,
 *             with the same results but for rounding, where a run has an output of q's dtype,
 *             a scale above 0, addresses (lse's, too) and strides of tokens and heads that are
 *             multiples of 16 bytes, some request with two queries or more and some with two
 *             keys, and at most 4096 requests of at most 131072 of either; in a layer, whose
 *             requests see context and new tokens at once, likewise. The first run on a
 *             CUDA device, mla_workspace_size() or mla_warm_up() looks for it: for what
 *             dlopen() finds as libcudnn.so.9, which in a process of torch's is torch's. The
 *             environment's MLA_CUDNN_LIBRARY names another file or, "off", turns it off. All
 *             else, and whatever cuDNN refuses or fails at, is carried out by the library's
 *             own kernels; the log says when a cuDNN that was found or named will not serve.
 *             Which engine serves, and so a request's bits, may depend on others of its batch.
 *             A run without mla_workspace_size() bytes of workspace takes memory in the
 *             stream's order (cuMemAllocAsync); one that is captured does not, and leaves
 *             cuDNN out. A plan of cuDNN's, for all batches of a class of lengths, is compiled
 *             by the first run that needs it, in a second or so, and kept where compiled
 *             kernels are; a run that is captured makes none. mla_warm_up() makes some ahead.
 *             In a layer cuDNN multiplies latents by kv_b_proj, too, by plans for three numbers
 *             of rows, the smallest of 128 rows or more and 2^21 outputs or more; rows that
 *             are less than that, or are left, are the library's own kernels'.
 */
#ifndef MLA_PREFILL_H
#define MLA_PREFILL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------ */
/* 1. Versions, status codes, the last error                                */
/* ------------------------------------------------------------------------ */

/** Raised when a caller compiled against an older header could misbehave. */
#define MLA_ABI_VERSION 1

#define MLA_VERSION_MAJOR 0
#define MLA_VERSION_MINOR 1
#define MLA_VERSION_PATCH 0

/** What a call came to; one of the MLA_OK / MLA_ERROR_* values. */
typedef int32_t mla_status;

enum {
  MLA_OK = 0,
  /** An argument breaks a rule of this header. */
  MLA_ERROR_INVALID_ARGUMENT = 1,
  /** The arguments are well formed, but no backend (or not the one asked for)
      serves this configuration. */
  MLA_ERROR_UNSUPPORTED_CONFIGURATION = 2,
  /** Nothing that runs on the tensors' device, or a dependency is missing. */
  MLA_ERROR_UNSUPPORTED_HARDWARE = 3,
  /** No backend of that name, or CUSTOM before it was registered. */
  MLA_ERROR_NOT_REGISTERED = 4,
  /** Memory could not be had. What the call was to make or change is as it was, and
      the same call succeeds when there is memory again. */
  MLA_ERROR_OUT_OF_MEMORY = 5,
  /** A defect of the library or of a registered backend, or what a device's driver
      says of no other kind; faults of earlier work on the device show that way, too. */
  MLA_ERROR_INTERNAL = 6
};

/** MLA_ABI_VERSION of the library that is loaded. */
uint32_t mla_abi_version(void);

/** Version of the library that is loaded, "major.minor.patch". */
const char *mla_version(void);

/** Name of a status, "MLA_ERROR_INVALID_ARGUMENT" say; "unknown" for others. */
const char *mla_status_name(mla_status status);

/**
 * Why the calling thread's last failing call failed: the field, its value and
 * the rule. "" when none has failed. Valid until the thread's next failing call.
 */
const char *mla_last_error_message(void);

/**
 * Sets the calling thread's message. For backends of your own: called before
 * a vtable function returns a failing status, it tells the caller why.
 * `message` may be NULL, which means ""; what is beyond its first 64 KiB is cut off.
 */
void mla_set_last_error_message(const char *message);

/* ------------------------------------------------------------------------ */
/* 2. The host: CPU, kernels, threads, log, memory                          */
/* ------------------------------------------------------------------------ */

/** A family of kernels, weakest first. Each table is complete: what a family
    has no kernel of its own for is filled from the family below it. */
enum {
  /** As a limit: none, the best that the host has. */
  MLA_ISA_DEFAULT = 0,
  MLA_ISA_PORTABLE = 1,
  /** AVX2, FMA and F16C. */
  MLA_ISA_AVX2 = 2,
  /** AVX-512 F, BW, DQ, VL. */
  MLA_ISA_AVX512 = 3,
  /** The above and AVX512_BF16. */
  MLA_ISA_AVX512_BF16 = 4,
  /** The above and AMX-TILE, AMX-BF16, with the kernel's permission. */
  MLA_ISA_AMX = 5,
  /** 64-bit Arm's: fused multiply-add and fp16 conversion in vectors of 4 fp32. As a
      limit, a table of another architecture leaves the portable one. */
  MLA_ISA_NEON = 6,
  /** The above and FEAT_BF16. */
  MLA_ISA_NEON_BF16 = 7
};

/** What the host offers and what the library makes of it. */
typedef struct mla_cpu_info {
  /** Set by MLA_CPU_INFO_INIT. */
  uint32_t struct_size;
  /** Bits of MLA_CPU_*. A bit is set where the CPU has the instructions AND
      the operating system saves their registers. */
  uint32_t features;
  /** MLA_ISA_* of the best kernel table that this host can run. */
  int32_t best_isa;
  /** MLA_ISA_* of the table in use: best_isa, unless the environment variable
      MLA_MAX_ISA (portable, avx2, avx512, avx512_bf16, amx, neon, neon_bf16) caps
      it. It is read once, at the library's first use; what is none of these names is
      ignored, which mla_cpu_summary() and the log say. */
  int32_t isa;
  /** MLA_ISA_* of the kernel that serves bf16, fp16 and fp32 inputs. */
  int32_t bf16_isa;
  int32_t fp16_isa;
  int32_t fp32_isa;
  /** Processors this process may run on, counted at each call. */
  int32_t num_processors;
  /** CPU vendor ("GenuineIntel", "AuthenticAMD", ...) and model, NUL-terminated. On Arm
      the core's designer ("ARM", "Ampere", "Apple", ...) and the core ("Neoverse-V1 r1p1"),
      or their numbers. */
  char vendor[16];
  char model[64];
} mla_cpu_info;

#define MLA_CPU_INFO_INIT {sizeof(mla_cpu_info), 0, 0, 0, 0, 0, 0, 0, {0}, {0}}

enum {
  MLA_CPU_AVX2 = 1 << 0,
  MLA_CPU_FMA = 1 << 1,
  MLA_CPU_F16C = 1 << 2,
  MLA_CPU_AVX512F = 1 << 3,
  MLA_CPU_AVX512BW = 1 << 4,
  MLA_CPU_AVX512DQ = 1 << 5,
  MLA_CPU_AVX512VL = 1 << 6,
  MLA_CPU_AVX512_BF16 = 1 << 7,
  MLA_CPU_AMX_TILE = 1 << 8,
  MLA_CPU_AMX_BF16 = 1 << 9,
  /** 64-bit Arm's, by Linux's names. */
  MLA_CPU_ASIMD = 1 << 10,
  MLA_CPU_ASIMDHP = 1 << 11,
  MLA_CPU_BF16 = 1 << 12
};

/** Fills `info`, whose struct_size the caller has set. */
mla_status mla_get_cpu_info(mla_cpu_info *info);

/** The same as one printable line, for logs and bug reports; that of the first call. */
const char *mla_cpu_summary(void);

/** Name of an MLA_ISA_* value as MLA_MAX_ISA spells it; "unknown" for others. */
const char *mla_isa_name(int32_t isa);

/**
 * Number of threads that runs use, the calling one included. At most 1024. 0 goes
 * back to the default: the processors that this process may run on, less where its
 * control groups (Linux cgroups) grant it less of their time, as both are now; without
 * this call, as they were at the first use. Results have the same bits whatever the
 * number. Takes effect with the next run; the library's threads move to where the
 * process's others may run now. Those that cannot be started are done without, which
 * is logged once.
 */
mla_status mla_set_num_threads(int32_t num_threads);
int32_t mla_get_num_threads(void);

/** One piece of a parallel loop; `task_context` is the library's. */
typedef void (*mla_parallel_task)(void *task_context, int64_t index);

/**
 * A parallel loop of the host's own: must call `task(task_context, i)` exactly
 * once for each i in [0, count) and return after all have returned, on any
 * threads and in any order, even one after the other on the calling thread.
 */
typedef void (*mla_parallel_for)(void *host_context, int64_t count,
                                 mla_parallel_task task, void *task_context);

/**
 * Makes runs use the host's threads instead of the library's pool. The number
 * of pieces is mla_get_num_threads(). `parallel_for` NULL goes back to the
 * pool. `host_context` is borrowed until then and until the runs that were under
 * way have returned.
 */
mla_status mla_set_parallel_for(mla_parallel_for parallel_for, void *host_context);

enum {
  MLA_LOG_DEBUG = 0,
  MLA_LOG_INFO = 1,
  MLA_LOG_WARNING = 2
};

/** Receives one message; may be called from any thread, must not call back. (One that
    sets a callback nonetheless does not wait for itself.) */
typedef void (*mla_log_callback)(void *log_context, int32_t level, const char *message);

/** Where log messages go; `callback` NULL, the default, drops them. When this has
    returned, the callback before neither runs nor will run: it waits for calls
    under way, so hold nothing that they need. */
mla_status mla_set_log_callback(mla_log_callback callback, void *log_context);

/** Stores the callback that is set and its context, NULL where none is: for a part of a
    program that would not take another's place. `log_context` may be NULL. */
mla_status mla_get_log_callback(mla_log_callback *callback, void **log_context);

/**
 * Tells of calls, one line each: `level` 0 nothing, 1 a line when a call of what
 * mla_stats_size() counts returns, 2 also what was decided before and why. Without this
 * call the level is that of the environment variable MLA_VERBOSE, 0 where it is neither
 * "1" nor "2". Lines go to `callback`, as messages of MLA_LOG_INFO under the terms of
 * mla_set_log_callback(), or, where it is NULL, to standard error. Fields stand between
 * commas, a "-" is what does not apply:
 *
 *     mla_verbose,call,ENTRY,BACKEND,DEVICE,DTYPE,SHAPES,KERNEL,FORM,THREADS,MICROSECONDS,STATUS
 *     mla_verbose,call,mla_run_prefill_new_tokens,FLASH_ATTN,cpu,bf16,requests:2 tokens:512
 *         keys:512 heads:16 qk:192 v:128,avx512_bf16,-,2,1520.4,ok
 *     mla_verbose,plan,...
 *
 * KERNEL is a name of mla_isa_name()'s, "cuda", "cudnn", "registered" or "none". FORM says
 * how a layer's ("up_projected", "absorbed", "selected") and mla_attention()'s ("by_head",
 * "by_group") requests were worked on. On a device a call returns when its work is on the
 * stream. Further fields may be added behind these, and the words of "plan" lines may change.
 *
 * Errors: MLA_ERROR_INVALID_ARGUMENT for another level, MLA_ERROR_OUT_OF_MEMORY.
 */
mla_status mla_set_verbose(int32_t level, mla_log_callback callback, void *log_context);

/** What calls of one entry that one kind of kernel carried out have done, in the whole
    process, since it began or since mla_reset_stats(). */
typedef struct mla_call_stats {
  /** Set by MLA_CALL_STATS_INIT. */
  uint32_t struct_size;
  uint32_t reserved;
  /** As in mla_set_verbose()'s lines; both live as long as the process. */
  const char *entry;
  const char *kernel;
  /** That have returned, and how many of them not MLA_OK. */
  int64_t calls;
  int64_t failures;
  /** Tokens of the others: rows of q, or those that were merged, cached or gathered. */
  int64_t tokens;
  /** From call to return. A call that a registered backend makes is counted twice: by
      itself and in the one that it is part of. */
  int64_t nanoseconds;
} mla_call_stats;

#define MLA_CALL_STATS_INIT {sizeof(mla_call_stats), 0, NULL, NULL, 0, 0, 0, 0}

/** Number of pairs of entry and kernel; many have no calls. The same throughout. */
int32_t mla_stats_size(void);

/** Fills `stats`, whose struct_size the caller has set, with the counts of pair `index`, 0
    to mla_stats_size() - 1. Counts of calls that return meanwhile may be in part there. */
mla_status mla_get_stats(int32_t index, mla_call_stats *stats);

/** Sets all counts to 0. */
void mla_reset_stats(void);

/**
 * Gives back to the system the memory that runs have left to the next ones, which
 * take it anew. That is at most a gibibyte and a sixteenth of the memory that the
 * machine has and the process's control groups grant. Runs under way keep theirs.
 * Stores how many bytes went; `bytes` may be NULL.
 */
mla_status mla_trim(int64_t *bytes);

/* ------------------------------------------------------------------------ */
/* 3. Tensors                                                               */
/* ------------------------------------------------------------------------ */

enum {
  MLA_DTYPE_NONE = 0,
  MLA_DTYPE_FLOAT32 = 1,
  MLA_DTYPE_FLOAT16 = 2,
  MLA_DTYPE_BFLOAT16 = 3,
  /** OCP e4m3fn: no infinity, largest value 448. */
  MLA_DTYPE_FLOAT8_E4M3FN = 4,
  /** A power of two, 2^(byte - 127), 255 being NaN; scales of weights alone. */
  MLA_DTYPE_FLOAT8_E8M0FNU = 5
};

/** DLPack's device types, as far as this header names them. */
enum {
  MLA_DEVICE_CPU = 1,
  MLA_DEVICE_CUDA = 2,
  MLA_DEVICE_CUDA_HOST = 3,
  MLA_DEVICE_ROCM = 10,
  MLA_DEVICE_ROCM_HOST = 11
};

#define MLA_MAX_NDIM 4

/** A borrowed view of a tensor. */
typedef struct mla_tensor {
  /** Set by MLA_TENSOR_INIT. */
  uint32_t struct_size;
  /** MLA_DTYPE_*. */
  int32_t dtype;
  /** First element; may be NULL only if a dimension is 0. */
  void *data;
  /** DLPack device type and id: MLA_DEVICE_CPU and 0, or what the call's backend object
      was made for. */
  int32_t device_type;
  int32_t device_id;
  /** Number of dimensions, 1 to MLA_MAX_NDIM; entries beyond it are ignored. */
  int32_t ndim;
  uint32_t reserved;
  int64_t shape[MLA_MAX_NDIM];
  /** In elements; those of dimensions of size 0 or 1, and all where a dimension is 0, are
      ignored. */
  int64_t strides[MLA_MAX_NDIM];
} mla_tensor;

#define MLA_TENSOR_INIT \
  {sizeof(mla_tensor), MLA_DTYPE_NONE, NULL, MLA_DEVICE_CPU, 0, 0, 0, {0, 0, 0, 0}, {0, 0, 0, 0}}

/* ------------------------------------------------------------------------ */
/* 4. The registry                                                          */
/* ------------------------------------------------------------------------ */

/*
 * One registry per process, shared by all languages in it. Its members are
 * FLASH_ATTN, FLASHINFER, TRTLLM_RAGGED, TOKENSPEED_MLA, ROCM_AITER_FA, CPU,
 * ZEN_CPU, CUSTOM (no implementation until one is registered) and whatever
 * mla_register_backend() adds. Any member can be overridden.
 */

typedef struct mla_backend_vtable mla_backend_vtable; /* section 9 */

/** What stands behind a name: a class path, a vtable, or both. */
typedef struct mla_backend_registration {
  /** Set by MLA_BACKEND_REGISTRATION_INIT. */
  uint32_t struct_size;
  uint32_t reserved;
  /** "package.module.Class" as Python would import it; may be NULL where
      `vtable` is given. Copied. "" without a vtable adds a dynamic member that,
      like CUSTOM, has no implementation until it is overridden. */
  const char *class_path;
  /** How C code runs it; may be NULL where `class_path` is given: the name can
      then be listed and resolved, but mla_backend_create() refuses it. The
      struct is copied; its context is owned from the moment the call succeeds,
      and never if it fails. */
  const mla_backend_vtable *vtable;
} mla_backend_registration;

#define MLA_BACKEND_REGISTRATION_INIT {sizeof(mla_backend_registration), 0, NULL, NULL}

/**
 * Adds a dynamic member (vLLM: MLAPrefillBackendEnum.register). The name must be
 * new, a Python identifier of at most 255 bytes, and not reserved: `mro`,
 * `name`, `value`, `register`, `get_path`, `get_class`, `is_overridden`,
 * `clear_override` and all names that begin and end with an underscore are. What
 * is registered here is the member's own implementation: it does not count as
 * an override, and mla_clear_override() goes back to it. There may be 1024 dynamic
 * members at a time.
 */
mla_status mla_register_backend(const char *name, const mla_backend_registration *registration);

/**
 * Puts another implementation behind an existing member, CUSTOM included
 * (vLLM: register_mla_prefill_backend on an enum member). Backend objects that
 * exist already keep the implementation they were created with.
 */
mla_status mla_override_backend(const char *name, const mla_backend_registration *registration);

/** Goes back to the member's own implementation; no error if not overridden. */
mla_status mla_clear_override(const char *name);

/** Removes a dynamic member and its override; built-in ones cannot be removed.
    Backend objects that exist already live on, and the name is free again. */
mla_status mla_remove_backend(const char *name);

/** Stores the class path behind a name, overrides respected; NULL where a
    vtable alone stands behind it. CUSTOM before it is registered gives
    MLA_ERROR_NOT_REGISTERED. */
mla_status mla_backend_path(const char *name, const char **class_path);

/** Stores 1 if the member is overridden, else 0. */
mla_status mla_backend_is_overridden(const char *name, int32_t *is_overridden);

/* ------------------------------------------------------------------------ */
/* 5. The selector                                                          */
/* ------------------------------------------------------------------------ */

enum {
  /** The platform that the host is found to be: CUDA where its first device that
      CUDA_VISIBLE_DEVICES leaves is one that the library has kernels for, and what is asked
      for can be served there; CPU else. NVIDIA's management library is asked, if
      there is one: no CUDA context is made, and a process that forks may do so. */
  MLA_PLATFORM_AUTO = 0,
  MLA_PLATFORM_CPU = 1,
  MLA_PLATFORM_CUDA = 2,
  MLA_PLATFORM_ROCM = 3
};

/** What a backend must serve (vLLM: MLAPrefillSelectorConfig and its config). */
typedef struct mla_selector_config {
  /** Set by MLA_SELECTOR_CONFIG_INIT. */
  uint32_t struct_size;
  /** MLA_DTYPE_* of the model. */
  int32_t dtype;
  int32_t qk_nope_head_dim;
  int32_t qk_rope_head_dim;
  int32_t v_head_dim;
  /** MLA_PLATFORM_*. */
  int32_t platform;
  /** CUDA compute capability, or major 9 minor 4 / 5 for gfx942 / gfx950 on
      ROCm; major -1 where it is not known. Ignored on the CPU platform. */
  int32_t capability_major;
  int32_t capability_minor;
  /** Not 0: results must not depend on the batch (vLLM: VLLM_BATCH_INVARIANT). */
  int32_t batch_invariant;
  /** Not 0: judges the members' own implementations, whatever overrides them. */
  int32_t ignore_overrides;
  /** The engine's explicit choice, in upper case or as it was registered;
      "auto": automatic; NULL: the environment variable MLA_PREFILL_BACKEND, read
      at each call, if set and not "", else automatic. May be NULL. */
  const char *backend;
} mla_selector_config;

#define MLA_SELECTOR_CONFIG_INIT \
  {sizeof(mla_selector_config), MLA_DTYPE_BFLOAT16, 0, 0, 0, MLA_PLATFORM_AUTO, -1, -1, 0, 0, NULL}

/**
 * Chooses a backend; stores its name. A member overridden by a vtable is judged
 * by its `validate`, one overridden by a class path alone counts as valid: its
 * rules live in another language. An explicit choice that does not fit
 * gives MLA_ERROR_UNSUPPORTED_CONFIGURATION and vLLM's text with the reasons;
 * an unknown name or unregistered CUSTOM gives MLA_ERROR_NOT_REGISTERED.
 */
mla_status mla_select_backend(const mla_selector_config *config, const char **name);

/** Takes one reason why a configuration cannot be served; valid for the call. The
    library's, which a vtable's `validate` gets, takes 64 reasons of 1024 bytes each;
    what is beyond that is cut off. */
typedef void (*mla_reason_sink)(void *sink_context, const char *reason);

/**
 * Hands `sink` each reason why the backend does not serve the configuration, in
 * vLLM's order and words, none if it does (vLLM: validate_configuration).
 * `config->backend` is ignored; of overrides the same holds as above.
 */
mla_status mla_validate_configuration(const char *name, const mla_selector_config *config,
                                      mla_reason_sink sink, void *sink_context);

/** All members at one moment, in order of definition, judged by one config. */
typedef struct mla_backend_list mla_backend_list;

/** One row of the list. Strings belong to the list. */
typedef struct mla_backend_info {
  /** Set by MLA_BACKEND_INFO_INIT. */
  uint32_t struct_size;
  /** 1: serves the configuration; 0: see `reasons`. */
  int32_t is_valid;
  /** "FLASH_ATTN", ... */
  const char *name;
  /** What the backend calls itself (vLLM: get_name()): "CPU_SDPA_MLA" for CPU. */
  const char *backend_name;
  /** NULL for CUSTOM before it is registered and for a vtable without one. */
  const char *class_path;
  /** vLLM's texts joined by "; ", "" when valid. */
  const char *reasons;
  int32_t num_reasons;
  int32_t is_overridden;
  /** 1: a member added by mla_register_backend(). */
  int32_t is_dynamic;
  /** 1: mla_backend_create() can make one in this process. */
  int32_t is_runnable;
} mla_backend_info;

#define MLA_BACKEND_INFO_INIT {sizeof(mla_backend_info), 0, NULL, NULL, NULL, NULL, 0, 0, 0, 0}

/** `config` may be NULL: then nothing is judged, no row is valid and none has a
    reason; what is registered is listed without running any of it. */
mla_status mla_backend_list_create(const mla_selector_config *config, mla_backend_list **list);
int32_t mla_backend_list_size(const mla_backend_list *list);
mla_status mla_backend_list_get(const mla_backend_list *list, int32_t index, mla_backend_info *info);
/** Stores reason `reason` of row `index`; the string belongs to the list. */
mla_status mla_backend_list_reason(const mla_backend_list *list, int32_t index, int32_t reason,
                                   const char **text);
/** `list` may be NULL. */
void mla_backend_list_destroy(mla_backend_list *list);

/* ------------------------------------------------------------------------ */
/* 6. Metadata of a batch, and how its context is cut into chunks           */
/* ------------------------------------------------------------------------ */

/** One context chunk: for some consecutive requests, some of the keys that
    were cached before this step (vLLM: ContextChunk). Host memory. */
typedef struct mla_context_chunk {
  /** Set by MLA_CONTEXT_CHUNK_INIT. */
  uint32_t struct_size;
  /** Place in mla_prefill_metadata.chunks, or -1 for a chunk not announced there. */
  int32_t index;
  int32_t num_requests;
  uint32_t reserved;
  /** [num_requests + 1] row offsets into the chunk's q, from 0, never falling. */
  const int32_t *query_start_loc;
  /** [num_requests + 1] row offsets into the chunk's k and v, likewise. */
  const int32_t *cu_seq_lens;
} mla_context_chunk;

#define MLA_CONTEXT_CHUNK_INIT {sizeof(mla_context_chunk), -1, 0, 0, NULL, NULL}

/** A batch: one per engine step, shared by all layers. Host memory, copied; copies on a
    device stay where they are. */
typedef struct mla_prefill_metadata {
  /** Set by MLA_PREFILL_METADATA_INIT. */
  uint32_t struct_size;
  /** May be 0: an empty batch. */
  int32_t num_requests;
  /** [num_requests + 1] row offsets of the new tokens, from 0, never falling. */
  const int32_t *query_start_loc;
  /** Context chunks known in advance, so that they can be planned once; may be
      NULL where num_chunks is 0. Chunk i must have index i or -1. */
  const mla_context_chunk *chunks;
  int32_t num_chunks;
  uint32_t reserved;
  /** A copy of query_start_loc in memory of the backend object's device, aligned to 4 bytes:
      registered backends get the address as it came, and may read it in the runs of the new
      tokens, until other metadata is prepared. May be NULL, and must be on the CPU. */
  const int32_t *device_query_start_loc;
} mla_prefill_metadata;

#define MLA_PREFILL_METADATA_INIT {sizeof(mla_prefill_metadata), 0, NULL, NULL, 0, 0, NULL}

/** How contexts are packed into chunks of bounded size. */
typedef struct mla_context_plan_args {
  /** Set by MLA_CONTEXT_PLAN_ARGS_INIT. */
  uint32_t struct_size;
  int32_t num_requests;
  /** [num_requests] cached tokens of each request, 0 where it has none; may be
      NULL where num_requests is 0. */
  const int32_t *context_lens;
  /** [num_requests + 1] row offsets of the new tokens, from 0, never falling;
      may be NULL, then the chunks carry no query_start_loc. */
  const int32_t *query_start_loc;
  /** Most context rows in a chunk; at least block_size. More than INT32_MAX
      means INT32_MAX, and a plan of more than 2^20 chunks is refused. */
  int64_t row_budget;
  /** A request that must be split is split at a multiple of this; at least 1. */
  int32_t block_size;
  /** Most rows split off a request that does not fit whole; what is left of it
      goes whole where it fits. 0: row_budget; else at least block_size. Rounded
      down to a multiple of block_size. */
  int32_t max_context_chunk;
} mla_context_plan_args;

#define MLA_CONTEXT_PLAN_ARGS_INIT {sizeof(mla_context_plan_args), 0, NULL, NULL, 0, 1, 0}

typedef struct mla_context_plan mla_context_plan;

/** One planned chunk. Arrays belong to the plan. */
typedef struct mla_context_plan_chunk {
  /** Set by MLA_CONTEXT_PLAN_CHUNK_INIT. */
  uint32_t struct_size;
  int32_t index;
  /** Requests [request_begin, request_end) of the batch; all have rows here. */
  int32_t request_begin;
  int32_t request_end;
  /** New tokens [token_begin, token_end) of the batch: the chunk's q rows; 0, 0
      without a query_start_loc. */
  int32_t token_begin;
  int32_t token_end;
  /** 1: the first request continues from the chunk before; the results of its
      tokens, [token_begin, continuation_token_end), must be merged, not stored. */
  int32_t is_continuation;
  int32_t continuation_token_end;
  /** [requests] first context row of each request in this chunk. */
  const int32_t *starts;
  /** [requests] context rows of each request in this chunk. */
  const int32_t *seq_lens;
  /** [requests + 1] as mla_context_chunk has them; query_start_loc NULL without
      one in the arguments. */
  const int32_t *query_start_loc;
  const int32_t *cu_seq_lens;
} mla_context_plan_chunk;

#define MLA_CONTEXT_PLAN_CHUNK_INIT \
  {sizeof(mla_context_plan_chunk), 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL}

/**
 * Packs contexts into chunks as vLLM's plan_mla_context_chunks does: each
 * context row in exactly one chunk; no chunk above row_budget; splits only at
 * multiples of block_size; only a chunk's first request may be a continuation;
 * a request without context is in none.
 */
mla_status mla_plan_context_chunks(const mla_context_plan_args *args, mla_context_plan **plan);
int32_t mla_context_plan_num_chunks(const mla_context_plan *plan);
mla_status mla_context_plan_get(const mla_context_plan *plan, int32_t index,
                                mla_context_plan_chunk *chunk);
/** `plan` may be NULL. */
void mla_context_plan_destroy(mla_context_plan *plan);

/* ------------------------------------------------------------------------ */
/* 7. Backend objects                                                       */
/* ------------------------------------------------------------------------ */

/** What a backend object is made for (vLLM: MLAPrefillBackend.__init__). */
typedef struct mla_backend_config {
  /** Set by MLA_BACKEND_CONFIG_INIT. */
  uint32_t struct_size;
  int32_t num_heads;
  /** Multiplies the scores; 0, or of a size from 2^-126 to 2^127. */
  double scale;
  int32_t kv_lora_rank;
  int32_t qk_nope_head_dim;
  int32_t qk_rope_head_dim;
  int32_t v_head_dim;
  /** MLA_ISA_*: the strongest kernels this object may use; the host's and
      MLA_MAX_ISA's limits hold as well. */
  int32_t max_isa;
  /** Not 0: the member's own implementation, whatever overrides it: how an
      override falls back on what it replaces. */
  int32_t ignore_override;
  /** Where the tensors of all runs will be: MLA_DEVICE_CPU, _CUDA or _ROCM, and which of
      them, from 0 on. 0 means MLA_DEVICE_CPU, whose id is 0. */
  int32_t device_type;
  int32_t device_id;
} mla_backend_config;

#define MLA_BACKEND_CONFIG_INIT \
  {sizeof(mla_backend_config), 0, 0.0, 0, 0, 0, 0, MLA_ISA_DEFAULT, 0, 0, 0}

typedef struct mla_backend mla_backend;

/** Creates an object of the implementation now behind `name`, or of the name's
    own one (`config->ignore_override`). Owned by the caller until
    mla_backend_destroy(). A device on which the implementation does not run gives
    MLA_ERROR_UNSUPPORTED_HARDWARE.

    The library's own backends on a CUDA device obey vLLM's rules for capability and
    dimensions (mla_validate_configuration()); what breaks them gives
    MLA_ERROR_UNSUPPORTED_CONFIGURATION. Their dtypes are bf16 and fp16, with fp8 outputs
    where output_scale is given; their workspace is 0 bytes, but for that of cuDNN. Making the
    first object for a device takes a second, or where the build has no code for it and
    compiles it, many: it is kept in MLA_CACHE_DIR, else in mla_prefill in the user's cache
    directory. */
mla_status mla_backend_create(const char *name, const mla_backend_config *config,
                              mla_backend **backend);

/** A second object of the same configuration, without metadata. */
mla_status mla_backend_clone(const mla_backend *backend, mla_backend **clone);

/** `backend` may be NULL. */
void mla_backend_destroy(mla_backend *backend);

/** The registry name it was created by; "" for NULL. Valid while it lives. */
const char *mla_backend_name(const mla_backend *backend);

/** Does ahead what a first run would wait for, with no batch or a batch prepared, which stays.
    On the CPU one small run of each dtype, which is thrown away: threads are started, memory
    is had. On a CUDA device, where cuDNN serves, its plans for bf16 and for fp16 tensors as
    vLLM has them: q, k and out dense, v the last v_head_dim of each qk_nope_head_dim +
    v_head_dim; and for a layer that works on all its heads at once, without lse. A first run
    that is captured then has them, too. Nothing for a registered backend.
    TOKENSPEED_MLA's objects have it done when they are made. */
mla_status mla_warm_up(const mla_backend *backend);

/** Hands in the batch; needed before any run. Once for all layers: what the first
    run of the new tokens, or of an announced chunk, finds out about the batch serves
    the others. Runs under way on other threads finish with the metadata they started
    with. */
mla_status mla_prepare_metadata(mla_backend *backend, const mla_prefill_metadata *metadata);

/** Causal attention of a batch's new tokens to themselves. Tensors may have rows
    beyond the batch's last offset; they are neither read nor written, but by
    TRTLLM_RAGGED where no request has new tokens: then, as in vLLM, all rows of
    out are 0 and of lse -inf.

    Scores and outputs are accumulated in fp32, of fp16 and fp32 inputs with all
    their bits, subnormal numbers too, whichever kernels run; weights of less than
    2^-99 of the largest may count as 0. Instructions for bf16 and AMX tiles take and
    give 0 for subnormal numbers; on AMX, fp32 inputs, and products of two, below
    2^-110 lose bits, inputs from 2^128 (1 - 2^-9) on count as infinite, and so may
    scores of 2^30 and more in size, on the others those of 2^127; weights of bf16
    inputs are exact to 3e-6 of themselves there. A sum beyond fp32 is infinite: that
    of twelve values of 1e38, say, whatever their mean.

    A row depends on its query and on the keys that it sees, to the bit, whatever the
    others hold. Where numbers are not finite:
      - a score of NaN or +inf makes its row NaN, lse too;
      - a score of -inf has weight 0; a row of no others counts as one without keys;
      - a NaN or an infinity in v shows as a NaN or an infinity in that dimension of the
        rows in which its key has a weight above 0; where that is 0, it may or may not;
      - on AMX, an infinity in q or k of fp16 or fp32 may count as NaN, and one in bf16
        as a score of the same sign where the scale is 0. */
typedef struct mla_new_tokens_args {
  /** Set by MLA_NEW_TOKENS_ARGS_INIT. */
  uint32_t struct_size;
  uint32_t reserved;
  /** [num_tokens, num_heads, qk_head_dim] of bf16, fp16 or fp32. */
  const mla_tensor *q;
  /** The same shape and dtype as q, rows beyond the batch included. */
  const mla_tensor *k;
  /** [num_tokens, num_heads, v_head_dim], dtype of q; may be a view into wider
      rows (vLLM's kv_nope). */
  const mla_tensor *v;
  /** [num_tokens, num_heads, v_head_dim] of bf16, fp16, fp32, or fp8_e4m3 with an
      output_scale; may be strided; must not overlap an input, lse or workspace. A
      token without keys is 0. */
  const mla_tensor *out;
  /** [num_heads, num_tokens] fp32: natural logarithm of the sum of exp(score *
      scale), -inf for a token without keys. May be NULL. */
  const mla_tensor *lse;
  /** Static scale of a quantized `out`: out = result / *output_scale, saturated;
      from 2^-126 to 2^126; only and always with an fp8_e4m3 out, and only
      where mla_supports_quant_output() says 1. May be NULL. */
  const float *output_scale;
  /** Scratch of at least mla_workspace_size() bytes, on the object's device; may be NULL
      with size 0: then the library's own is used, or the registered backend's. */
  void *workspace;
  int64_t workspace_size;
  /** NULL on the CPU. Else the device's (CUstream and cudaStream_t, hipStream_t), on which
      the backend puts its work; NULL there is the default stream. */
  void *stream;
} mla_new_tokens_args;

#define MLA_NEW_TOKENS_ARGS_INIT \
  {sizeof(mla_new_tokens_args), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL}

mla_status mla_run_prefill_new_tokens(const mla_backend *backend, const mla_new_tokens_args *args);

/** Attention of some requests' new tokens to a chunk of their context: no mask. */
typedef struct mla_context_chunk_args {
  /** Set by MLA_CONTEXT_CHUNK_ARGS_INIT. */
  uint32_t struct_size;
  uint32_t reserved;
  const mla_context_chunk *chunk;
  /** [num_q_rows, num_heads, qk_head_dim]: the rows of chunk->query_start_loc. */
  const mla_tensor *q;
  /** [num_kv_rows, num_heads, qk_head_dim]: the rows of chunk->cu_seq_lens. */
  const mla_tensor *k;
  /** [num_kv_rows, num_heads, v_head_dim]. */
  const mla_tensor *v;
  /** [num_q_rows, num_heads, v_head_dim]. */
  const mla_tensor *out;
  /** [num_heads, num_q_rows] fp32; required. */
  const mla_tensor *lse;
  void *workspace;
  int64_t workspace_size;
  void *stream;
  /** Copies of the chunk's offsets in memory of the backend object's device, aligned to 4
      bytes: registered backends get the addresses as they came. May be NULL, and must be on
      the CPU. */
  const int32_t *device_query_start_loc;
  const int32_t *device_cu_seq_lens;
} mla_context_chunk_args;

#define MLA_CONTEXT_CHUNK_ARGS_INIT                                                            \
  {sizeof(mla_context_chunk_args), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, \
   NULL}

mla_status mla_run_prefill_context_chunk(const mla_backend *backend,
                                         const mla_context_chunk_args *args);

/** Stores 1 if runs write into a caller's `out` (vLLM: supports_out). All
    built-in backends do. */
mla_status mla_supports_out(const mla_backend *backend, int32_t *supports);

/** Stores 1 if new-token runs can write `out` in MLA_DTYPE_* `dtype` with a
    static per-tensor output_scale (vLLM: supports_quant_output). All built-in
    backends can write fp8_e4m3: the fp32 result, times the scale's inverse,
    rounded once. */
mla_status mla_supports_quant_output(const mla_backend *backend, int32_t dtype, int32_t *supports);

/** Stores the bytes of workspace that any run of the prepared batch, of its new
    tokens or of an announced chunk, needs at the present number of threads. */
mla_status mla_workspace_size(const mla_backend *backend, int64_t *bytes);

/* ------------------------------------------------------------------------ */
/* 8. Merging partial attention states                                      */
/* ------------------------------------------------------------------------ */

/**
 * Merges the attention of the same tokens to two disjoint sets of keys
 * (section 2.2 of arXiv:2501.01005). An lse of +inf counts as -inf (no keys);
 * two empty sides give 0 and -inf. A NaN for an lse makes NaN of the row; of a side
 * that weighs 0 beside the other the values do not matter. `output` may be the very
 * same view as prefix_output or suffix_output, and output_lse as their lse; any other
 * overlap is refused.
 */
typedef struct mla_merge_args {
  /** Set by MLA_MERGE_ARGS_INIT. */
  uint32_t struct_size;
  uint32_t reserved;
  /** [num_tokens, num_heads, v_head_dim] of bf16, fp16, fp32, or fp8_e4m3 with
      an output_scale. */
  const mla_tensor *output;
  /** [num_heads, num_tokens] fp32; may be NULL. */
  const mla_tensor *output_lse;
  /** [num_tokens, num_heads, v_head_dim], one dtype for both sides. */
  const mla_tensor *prefix_output;
  const mla_tensor *prefix_lse;
  const mla_tensor *suffix_output;
  const mla_tensor *suffix_lse;
  /** Tokens from this one on have no prefix: the suffix is merged with nothing, which
      copies it, but where its lse is infinite or NaN. -1: all have. */
  int64_t prefill_tokens_with_context;
  /** output = merged / *output_scale, saturated; from 2^-126 to 2^126; only
      and always with an fp8 output. May be NULL. */
  const float *output_scale;
  /** As in mla_new_tokens_args. */
  void *stream;
} mla_merge_args;

#define MLA_MERGE_ARGS_INIT \
  {sizeof(mla_merge_args), 0, NULL, NULL, NULL, NULL, NULL, NULL, -1, NULL, NULL}

mla_status mla_merge_attn_states(const mla_merge_args *args);

/* ------------------------------------------------------------------------ */
/* 9. Backends of your own: the vtable                                      */
/* ------------------------------------------------------------------------ */

/**
 * What the library calls to run a registered backend, from any thread.
 * `context` is the registration's own; `instance` what `create` stored. A
 * function that fails returns a status, best after
 * mla_set_last_error_message(). Arguments have been checked against this
 * header before they arrive, so a backend sees only well-formed ones.
 */
struct mla_backend_vtable {
  /** Set by MLA_BACKEND_VTABLE_INIT. */
  uint32_t struct_size;
  uint32_t reserved;
  void *context;
  /** Called once for each registration that succeeded, when it and the last
      object made from it are gone, on whatever thread lets go last. May be NULL. */
  void (*destroy_context)(void *context);
  /** What the backend calls itself; may be NULL: the member's name. Copied. */
  const char *backend_name;
  /** Reports each reason against a configuration, none if it is served; may be
      NULL: serves all. */
  mla_status (*validate)(void *context, const mla_selector_config *config, mla_reason_sink sink,
                         void *sink_context);
  mla_status (*create)(void *context, const mla_backend_config *config, void **instance);
  /** May be NULL. */
  void (*destroy)(void *context, void *instance);
  /** Must copy what it keeps. May be NULL. */
  mla_status (*prepare_metadata)(void *context, void *instance,
                                 const mla_prefill_metadata *metadata);
  mla_status (*run_prefill_new_tokens)(void *context, void *instance,
                                       const mla_new_tokens_args *args);
  mla_status (*run_prefill_context_chunk)(void *context, void *instance,
                                          const mla_context_chunk_args *args);
  /** Not 0: writes into the caller's `out`; may be NULL: yes. */
  int32_t (*supports_out)(void *context, void *instance);
  /** May be NULL: no. */
  int32_t (*supports_quant_output)(void *context, void *instance, int32_t dtype);
  /** Bytes of workspace for the prepared batch; may be NULL: 0. Below 0 it fails, best
      after mla_set_last_error_message(): -MLA_ERROR_OUT_OF_MEMORY with that status, any
      other with MLA_ERROR_INTERNAL. */
  int64_t (*workspace_size)(void *context, void *instance);
  /** Not 0: objects can be made for that device, MLA_DEVICE_CUDA or _ROCM and an id; asked
      before `create`, whose config names the device, MLA_DEVICE_CPU for the CPU. May be
      NULL: for the CPU alone, of which nobody is asked.

      A run on a device gets what the caller handed in and no memory of the library's. It
      may return before its work on `stream` is done: a fault that shows later is for the
      stream's owner to find. */
  int32_t (*supports_device)(void *context, int32_t device_type, int32_t device_id);
};

#define MLA_BACKEND_VTABLE_INIT                                                              \
  {sizeof(mla_backend_vtable), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
   NULL, NULL, NULL}

/* ------------------------------------------------------------------------ */
/* 10. The whole layer                                                      */
/* ------------------------------------------------------------------------ */

/*
 * What vLLM spreads over MLACommonImpl.forward_mha, context gathering,
 * kv_b_proj, concatenation, chunk loop and merging, in one call with bounded
 * memory: K and V never exist as whole tensors. A block of latents is gathered,
 * projected up and packed for the attention kernel, which sees a request's
 * context and new tokens as one sequence of keys; or, for few new tokens on a
 * long context, it is packed as it is, see MLA_LAYER_ALGORITHM_ABSORBED.
 *
 * That is so for the library's own backends. A registered one is used as
 * MLACommonImpl.forward_mha uses it: prepare_metadata, run_prefill_new_tokens
 * with the new tokens' keys and values as whole rows, run_prefill_context_chunk
 * for chunks of the context (mla_plan_context_chunks, split at multiples of 64
 * tokens), each result merged in fp32 into those before. K and V are contiguous,
 * requests without new tokens are left out, and out and lse are those of the
 * caller where nobody has context, else memory of the layer in dtype of q.
 * Keys and values of all new tokens, or of a chunk of at least 64 tokens, must
 * fit into the workspace bound, beside the results and the workspace that the
 * backend asks for. Each forward call under way has an object of its own. A
 * failing run's status and message are the call's.
 *
 * On a CUDA device (bf16 and fp16) a request's context and new tokens are one sequence of
 * keys, which are made as whole rows, [keys, heads, qk_head_dim] and [keys, heads,
 * qk_nope_head_dim + v_head_dim], of as many requests and heads at a time as fit into
 * workspace_bound, or a gibibyte: a request's latents and one head must. `algorithm` does
 * not bear on it. A registered backend is used as on the CPU; its V is the end of wider
 * rows there.
 *
 * Sums are fp32; what is rounded between them, by a part of at most u (2^-8 in
 * bf16, 2^-11 in fp16, 2^-24 in fp32), is rounded to dtype: kv_b_proj and cached
 * latents that are of another one, scales applied; keys and values; in the
 * absorbed form queries q' taken to the latents c instead. With weights and
 * latents that need none a query's lse is therefore off by at most
 *
 *     u * scale * max over its keys of sum_d |q_d k_d|, d < qk_nope_head_dim,
 *     u * scale * max over its keys of sum_r |q'_r c_r| in the absorbed form,
 *
 * and typically, errors being of either sign, by a tenth of that: for a few keys
 * and normally distributed q and k 4e-3 in bf16. How a prompt is cut into steps
 * does not bear on how keys are rounded.
 *
 * As in section 7 a row depends on its query and on the tokens that it sees alone. A
 * NaN in a token's latent or rotary part makes NaN of the rows that see it; an infinity
 * makes what sums and products with it make of keys and values or, in the absorbed
 * form, of scores and results.
 */

/** How a request's attention is computed; either way the same result within
    rounding. */
enum {
  /** For each request what costs less, by its lengths, the dimensions and the
      kernels: a request's bits do not depend on others, threads or load. Up-
      projected where the context is shorter than 256 tokens. */
  MLA_LAYER_ALGORITHM_AUTO = 0,
  /** Keys and values are made of each latent for each head, once for all
      queries: for many new tokens. */
  MLA_LAYER_ALGORITHM_UP_PROJECTED = 1,
  /** Queries are projected to the latents, which serve all heads as keys and as
      values, and results from there to values: for few new tokens on a long
      context. Queries in latent space and results are rounded to the layer's
      dtype, where the other form rounds keys and values. */
  MLA_LAYER_ALGORITHM_ABSORBED = 2
};

/** How a token lies in a paged cache. */
enum {
  /** [num_blocks, block_size, kv_lora_rank + rope] of bf16, fp16, fp32 or fp8_e4m3:
      the latent, then k_pe; of fp8 all is multiplied by one scale. */
  MLA_CACHE_FORMAT_PLAIN = 0,
  /** vLLM's and FlashMLA's fp8_ds_mla: [num_blocks, block_size, 656] bytes, handed in
      as fp8_e4m3. A token's 512 latents as e4m3, four fp32 that each multiply 128
      of them, its 64 values of k_pe as bf16. For kv_lora_rank 512 and rope 64, or
      rope 0: then zeros are in its place, which nobody reads. Any alignment; the
      stride of a block's tokens must be even. */
  MLA_CACHE_FORMAT_FP8_DS_MLA = 1
};

/** What a layer is made for. Dimensions and scale as in mla_backend_config. */
typedef struct mla_layer_config {
  /** Set by MLA_LAYER_CONFIG_INIT. */
  uint32_t struct_size;
  int32_t num_heads;
  /** Multiplies the scores; 0, or of a size from 2^-126 to 2^127. */
  double scale;
  /** At least 1. */
  int32_t kv_lora_rank;
  int32_t qk_nope_head_dim;
  int32_t qk_rope_head_dim;
  int32_t v_head_dim;
  /** MLA_ISA_*, as in mla_backend_config. */
  int32_t max_isa;
  /** MLA_DTYPE_* of q, kv_c_normed and k_pe, in which keys and values are made:
      bf16, fp16 or fp32. MLA_DTYPE_NONE: that of kv_b_proj, unless it is fp8. */
  int32_t dtype;
  /** Registry name of the backend; NULL: the one mla_select_backend() chooses
      for dtype and dimensions. One of the library's own backends decides how
      up-projected keys are split; its demands on a batch do not apply. A
      registered or overriding implementation, the one now behind the name, is
      used through its own run calls (see below). */
  const char *backend;
  /** [num_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank] of bf16, fp16,
      fp32 or, with weight_scales, fp8_e4m3, as checkpoints hold it: for each head
      the rows that make its keys, then those that make its values. Copied into
      the kernels' own layout, rounded to `dtype`: 4 bytes a number where a kernel
      multiplies fp32, 2 for each bf16 that it multiplies, of which AMX makes two of
      an fp16 and three of an fp32. But for MLA_LAYER_ALGORITHM_UP_PROJECTED and
      registered backends the keys' rows are there a second time. */
  const mla_tensor *kv_b_proj;
  /** MLA_DTYPE_* of kv_cache: bf16, fp16, fp32 or fp8_e4m3. MLA_DTYPE_NONE: dtype, or
      fp8_e4m3 where cache_format leaves no choice. */
  int32_t cache_dtype;
  /** What the elements of a plain fp8 cache are multiplied by; finite and above
      0 with one, else 0 or 1. */
  float cache_scale;
  /** Most bytes that a forward call uses beside its tensors; 0: as much as is
      fastest. 8192 keys of a head must fit, in the absorbed form a few blocks of
      latents and the partial results of a few tokens, which take less than twice
      the request's latents: a call that needs more is refused,
      its message says how much. Bits do not depend on it, but where a registered
      backend computes, or cuDNN. */
  int64_t workspace_bound;
  /** MLA_LAYER_ALGORITHM_*; a registered backend gets up-projected keys, whatever
      this says. All but UP_PROJECTED keep the keys' part of kv_b_proj in a
      second layout: num_heads * qk_nope_head_dim * kv_lora_rank more elements as the
      kernels hold them, bf16 in 2 bytes with AVX512_BF16 and AMX, fp16 in 4 and fp32
      in 6 on AMX, all others in 4. */
  int32_t algorithm;
  /** MLA_CACHE_FORMAT_*. */
  int32_t cache_format;
  /** What an fp8_e4m3 kv_b_proj is multiplied by when it is copied: fp32 or
      fp8_e8m0fnu, [1] for all of it, [rows] or [rows, 1] for each of its rows, or [rows /
      128, kv_lora_rank / 128], both rounded up, for blocks of 128 x 128 of its elements,
      heads or no heads (DeepSeek: weight_scale_inv), or of what weight_block_rows and
      _columns say. All finite and above 0. NULL for any other kv_b_proj. */
  const mla_tensor *weight_scales;
  /** Where all tensors will be, kv_b_proj and weight_scales too, as in mla_backend_config: on
      the CPU or a CUDA device. There a layer has a copy of kv_b_proj, in dtype, which must be
      bf16 or fp16; whoever writes the weights has been waited for. kv_lora_rank must be a
      multiple of 64, the heads' dimensions of 8. */
  int32_t device_type;
  int32_t device_id;
  /** Rows and columns of the blocks of kv_b_proj that have a scale each, weight_scales being
      [rows / weight_block_rows, kv_lora_rank / weight_block_columns], both rounded up:
      from 1 on, or both 0: what the shape of weight_scales says. */
  int32_t weight_block_rows;
  int32_t weight_block_columns;
} mla_layer_config;

#define MLA_LAYER_CONFIG_INIT                                                                \
  {sizeof(mla_layer_config), 0, 0.0, 0, 0, 0, 0, MLA_ISA_DEFAULT, MLA_DTYPE_NONE, NULL, NULL, \
   MLA_DTYPE_NONE, 0.0f, 0, MLA_LAYER_ALGORITHM_AUTO, MLA_CACHE_FORMAT_PLAIN, NULL, 0, 0, 0, 0}

/** Never changes: any number of threads may run one at once. */
typedef struct mla_layer mla_layer;

/** Owned by the caller until mla_layer_destroy(). */
mla_status mla_layer_create(const mla_layer_config *config, mla_layer **layer);

/** `layer` may be NULL. On a CUDA device what was put on streams has been waited for. */
void mla_layer_destroy(mla_layer *layer);

/** A batch: request i has context_lens[i] tokens in the cache and the new
    tokens of its rows of q, which follow them. Tensors may have rows beyond the
    batch's last offset; they are neither read nor written. */
typedef struct mla_layer_forward_args {
  /** Set by MLA_LAYER_FORWARD_ARGS_INIT. */
  uint32_t struct_size;
  /** May be 0: an empty batch. */
  int32_t num_requests;
  /** [num_requests + 1] row offsets of the new tokens, from 0, never falling. */
  const int32_t *query_start_loc;
  /** [num_requests] tokens in the cache, 0 where there are none; may be NULL:
      nobody has context. */
  const int32_t *context_lens;
  /** [num_tokens, num_heads, qk_nope_head_dim + qk_rope_head_dim], rope applied. */
  const mla_tensor *q;
  /** [num_tokens, kv_lora_rank], dtype of q. */
  const mla_tensor *kv_c_normed;
  /** [num_tokens, qk_rope_head_dim], dtype of q, rope applied; may be NULL where
      qk_rope_head_dim is 0. */
  const mla_tensor *k_pe;
  /** [num_blocks, block_size, kv_lora_rank + qk_rope_head_dim] of cache_dtype, or
      what cache_format says; or two tensors, see k_pe_cache. [num_blocks, ...] without
      block_size where that is 1: blocks are tokens then. May be NULL where nobody has
      context. */
  const mla_tensor *kv_cache;
  /** [num_requests, max_blocks]: token t of request i lies in block
      block_table[i * block_table_stride + t / block_size] at t % block_size. Entries
      before the context's first block and beyond its last are not read. NULL, with
      max_blocks 0 and num_requests blocks in kv_cache: request i has block i alone, which
      makes a dense cache [num_requests, tokens, width] one of blocks. May be NULL where
      nobody has context, too. For a layer on a CUDA device this is memory of that device,
      aligned to 4 bytes; an entry that is no block makes what it likes of its request's
      results alone. */
  const int32_t *block_table;
  int64_t block_table_stride;
  int32_t max_blocks;
  uint32_t reserved;
  /** [num_tokens, num_heads, v_head_dim] of bf16, fp16, fp32, or fp8_e4m3 with an
      output_scale; may be strided; must not overlap an input, lse or workspace. */
  const mla_tensor *out;
  /** [num_heads, num_tokens] fp32, natural logarithm; may be NULL. */
  const mla_tensor *lse;
  /** Scratch of at least mla_layer_workspace_size() bytes, on the layer's device; may be
      NULL with size 0: then the library's own is used, but not while a CUDA stream is
      captured. */
  void *workspace;
  int64_t workspace_size;
  /** As in mla_new_tokens_args. */
  void *stream;
  /** Static scale of a quantized `out`: out = result / *output_scale, saturated;
      from 2^-126 to 2^126; only and always with an fp8_e4m3 out. May be
      NULL. */
  const float *output_scale;
  /** [num_blocks, block_size, qk_rope_head_dim] of bf16, fp16, fp32 or fp8_e4m3, which
      cache_scale multiplies: the rotary keys of a cache of two tensors, whose kv_cache is
      [num_blocks, block_size, kv_lora_rank]. Both with strides of their own; not with
      MLA_CACHE_FORMAT_FP8_DS_MLA. NULL: they are in kv_cache. */
  const mla_tensor *k_pe_cache;
  /** [num_requests]: where in its blocks a request's context begins, behind padding, say:
      t above is context_starts[i] for the first token of request i's context, and blocks
      before that token's are not read. 0 or more; those of requests without context are
      not read. NULL: 0 for all. */
  const int32_t *context_starts;
  /** [num_requests]: the row of block_table that is request i's, 0 to num_table_rows - 1
      (SGLang: req_pool_indices). NULL: row i. */
  const int32_t *block_table_rows;
  /** The rows of block_table; read with block_table_rows alone. */
  int64_t num_table_rows;
  /** Bits of MLA_LAYER_*; others must be 0. */
  uint64_t flags;
  /** [num_tokens, topk], rows topk_stride apart: the positions of the keys that a new token
      attends to instead of all (DeepSeek Sparse Attention), counted from its request's
      first token on, context and new tokens alike. At most the token's own, with
      MLA_LAYER_CONTEXT_ONLY below context_lens; -1 anywhere is none; their order, and
      whether one is there twice, has no effect. A row of -1 gives 0, if weights are finite, and
      an lse of -inf. Must not overlap out, lse or workspace. NULL: every token attends to all
      it sees. Always in host memory. With other layers than
      the library's own on the CPU, and MLA_LAYER_ALGORITHM_UP_PROJECTED, which has no weights
      for it: MLA_ERROR_UNSUPPORTED_CONFIGURATION. */
  const int32_t *topk_indices;
  /** In entries, at least topk; like topk read with topk_indices alone. */
  int64_t topk_stride;
  /** At least 1; may be more than any token sees. */
  int32_t topk;
  /** 1: the new tokens are in kv_cache, too, behind their request's context, block table and
      blocks reaching as far, and are read there: kv_c_normed and k_pe are not read and may
      be NULL. For engines that put tokens into the cache first, and attend to what
      quantization has left of them. Else 0; with MLA_LAYER_CONTEXT_ONLY always. On the CPU, by
      the library's own backends: else MLA_ERROR_UNSUPPORTED_CONFIGURATION. */
  int32_t new_tokens_cached;
} mla_layer_forward_args;

#define MLA_LAYER_FORWARD_ARGS_INIT                                                            \
  {sizeof(mla_layer_forward_args), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, NULL, \
   NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, 0, 0, 0}

/** Flags of a forward call. */
enum {
  /** Every new token attends to all of its request's context, and not to new tokens, whose
      kv_c_normed and k_pe are not read and may be NULL; 0 and an lse of -inf where there is
      no context. What part of a context gives so, mla_merge_attn_states() merges with
      the rest: a context that is on several machines, say. */
  MLA_LAYER_CONTEXT_ONLY = 1 << 0
};

/** Stores the bytes of workspace that mla_layer_forward() needs for this batch at
    the present number of threads. Of `args` only num_requests, query_start_loc,
    context_lens, flags, reserved, which must be 0, whether there is an output_scale,
    topk_indices with its stride and topk, and new_tokens_cached are read. */
mla_status mla_layer_workspace_size(const mla_layer *layer, const mla_layer_forward_args *args,
                                    int64_t *bytes);

/** Causal attention of each request's new tokens to its context and, but with
    MLA_LAYER_CONTEXT_ONLY, to themselves. */
mla_status mla_layer_forward(const mla_layer *layer, const mla_layer_forward_args *args);

/**
 * Puts tokens into a paged cache (vLLM: concat_and_cache_mla).
 *
 * All values are rounded to nearest even. fp8 saturates at 448, infinities
 * too, and keeps NaN. With MLA_CACHE_FORMAT_FP8_DS_MLA the scale of 128 latents is
 * the smallest power of two from max(largest |latent| / 448, 2^-13) on, in which a NaN
 * has no part and an infinity counts as the largest finite fp32; latents are divided
 * by it. What other writers of the format put there is read as it is, powers of two or
 * not.
 */
typedef struct mla_concat_and_cache_args {
  /** Set by MLA_CONCAT_AND_CACHE_ARGS_INIT. */
  uint32_t struct_size;
  /** What the elements of a plain fp8 cache will be multiplied by when they are
      read; finite and above 0 with one, else 0 or 1. */
  float cache_scale;
  /** [num_tokens, kv_lora_rank] of bf16, fp16 or fp32. */
  const mla_tensor *kv_c_normed;
  /** [num_tokens, rope], dtype of kv_c_normed; may be NULL where rope is 0: where a
      plain cache is no wider than kv_c_normed and k_pe_cache not there or of width 0, and
      with MLA_CACHE_FORMAT_FP8_DS_MLA. */
  const mla_tensor *k_pe;
  /** [num_slots]: token i goes to block slot_mapping[i] / block_size at
      slot_mapping[i] % block_size, nowhere if it is -1. Of tokens with the same
      slot the last has it. Tokens from num_slots on are not read. May be NULL
      where num_slots is 0. With a cache on a CUDA device this is memory of that device,
      aligned to 8 bytes, in which no two tokens may have the same slot, and a number of
      no slot counts as -1. */
  const int64_t *slot_mapping;
  int64_t num_slots;
  /** [num_blocks, block_size, kv_lora_rank + rope] of bf16, fp16, fp32 or fp8_e4m3, or
      what cache_format says, or without block_size where that is 1; must not overlap an
      input. */
  const mla_tensor *kv_cache;
  /** As in mla_new_tokens_args. */
  void *stream;
  /** MLA_CACHE_FORMAT_*. */
  int32_t cache_format;
  uint32_t reserved;
  /** [num_blocks, block_size, rope] as mla_layer_forward_args has it: where k_pe goes,
      kv_cache being [num_blocks, block_size, kv_lora_rank]; of fp8 it holds k_pe divided
      by cache_scale, as kv_cache holds latents. Must overlap neither an input nor
      kv_cache. NULL: k_pe goes to kv_cache. */
  const mla_tensor *k_pe_cache;
} mla_concat_and_cache_args;

#define MLA_CONCAT_AND_CACHE_ARGS_INIT                                   \
  {sizeof(mla_concat_and_cache_args), 0.0f, NULL, NULL, NULL, 0, NULL, NULL, \
   MLA_CACHE_FORMAT_PLAIN, 0, NULL}

mla_status mla_concat_and_cache_mla(const mla_concat_and_cache_args *args);

/**
 * Brings requests' tokens from a paged cache into rows, side by side and dequantized (vLLM:
 * gather_and_maybe_dequant_cache, cp_gather_cache and cp_gather_and_upconvert_fp8_kv_cache):
 * for engines that project latents to keys and values themselves, chunk of the context by
 * chunk.
 *
 * What a scale multiplies is a product of fp32; all is rounded to nearest even, and what is of
 * the dtype of dst already keeps its bits. Rows have the same bits for any number of threads.
 */
typedef struct mla_gather_cache_args {
  /** Set by MLA_GATHER_CACHE_ARGS_INIT. */
  uint32_t struct_size;
  /** What the elements of a plain fp8 cache are multiplied by; finite and above 0 with
      one, else 0 or 1. */
  float cache_scale;
  /** [num_blocks, block_size, kv_lora_rank + rope] of bf16, fp16, fp32 or fp8_e4m3, or
      what cache_format says, or without block_size where that is 1. */
  const mla_tensor *kv_cache;
  /** [num_blocks, block_size, rope] as mla_layer_forward_args has it, kv_cache being
      [num_blocks, block_size, kv_lora_rank]. NULL: rotary keys are in kv_cache. */
  const mla_tensor *k_pe_cache;
  /** MLA_CACHE_FORMAT_*. */
  int32_t cache_format;
  /** 0 to 2^20. With 0 nothing is written, and the pointers but for tensors may be NULL. */
  int32_t num_requests;
  /** [num_requests, max_blocks], rows block_table_stride entries apart: position p of
      request i is in block block_table[i * block_table_stride + p / block_size] at
      p % block_size. Entries of positions that are not gathered are not read. NULL, with
      max_blocks 0 and num_requests blocks in kv_cache: request i has block i alone. */
  const int32_t *block_table;
  int64_t block_table_stride;
  int32_t max_blocks;
  uint32_t reserved;
  /** [num_requests + 1] offsets into the rows of dst, from 0, never falling: those from
      cu_seq_lens[i] to cu_seq_lens[i + 1] are request i's. */
  const int32_t *cu_seq_lens;
  /** [num_requests]: the position of the first token that goes to a request's rows, others
      following it; 0 or more, not read for requests without rows. NULL: 0 for all. */
  const int32_t *seq_starts;
  /** [rows, kv_lora_rank + rope] of bf16, fp16 or fp32: each token's latent, then its
      k_pe; with MLA_CACHE_FORMAT_FP8_DS_MLA kv_lora_rank is 512 and rope 64, or 0 where
      nobody wants it. Rows from cu_seq_lens[num_requests] on are not written. Must not
      overlap a cache. */
  const mla_tensor *dst;
  /** [rows, rope], dtype of dst: where k_pe goes, dst being [rows, kv_lora_rank]. Must
      overlap neither a cache nor dst. NULL: it goes to dst. */
  const mla_tensor *k_pe;
  /** As in mla_new_tokens_args. */
  void *stream;
} mla_gather_cache_args;

#define MLA_GATHER_CACHE_ARGS_INIT                                                    \
  {sizeof(mla_gather_cache_args), 0.0f, NULL, NULL, MLA_CACHE_FORMAT_PLAIN, 0, NULL, 0, 0, 0, \
   NULL, NULL, NULL, NULL, NULL}

/**
 * On the CPU whatever does not fit is refused before anything is written. With a cache on a
 * CUDA device block_table, cu_seq_lens and seq_starts are memory of that device, aligned to 4
 * bytes, which only the work itself reads: rows of no request are not written, nor those
 * whose token is in no block of the table, or in one that kv_cache does not have.
 */
mla_status mla_gather_and_maybe_dequant_cache(const mla_gather_cache_args *args);

/* ------------------------------------------------------------------------ */
/* 11. Attention in one call                                                */
/* ------------------------------------------------------------------------ */

/*
 * Attention as frameworks have it (torch's scaled_dot_product_attention, FlashAttention's
 * flash_attn_varlen_func): no backend, no metadata, any number of heads for each head
 * of keys. Numbers, and what is not finite, are as in section 7, and so are bits: a
 * request has the same in any batch, for any number of threads, with 3 dimensions or 4.
 */

/** Which of its request's keys query i sees; keys and queries are counted from the
    request's first. */
enum {
  /** All. */
  MLA_CAUSAL_NONE = 0,
  /** Those up to i. */
  MLA_CAUSAL_START = 1,
  /** Those up to i + keys - queries: the last query sees all, the one before all but
      the last. Where there are more queries than keys the first see none. */
  MLA_CAUSAL_END = 2
};

/**
 * Tensors have 3 dimensions or all have 4:
 *
 *     q    [rows, heads, dim]        or [batch, heads, rows, dim]
 *     k    [keys, kv_heads, dim]     or [batch, kv_heads, keys, dim]
 *     v    [keys, kv_heads, v_dim]   or [batch, kv_heads, keys, v_dim]
 *     out  [rows, heads, v_dim]      or [batch, heads, rows, v_dim]
 *     lse  [heads, rows]             or [batch, heads, rows]
 *
 * each with strides of its own: a transposed view is read and written in place. v may be
 * a view of k. Query head h looks at head h / (heads / kv_heads) of keys.
 */
typedef struct mla_attention_args {
  /** Set by MLA_ATTENTION_ARGS_INIT. */
  uint32_t struct_size;
  /** MLA_CAUSAL_*. */
  int32_t causal;
  /** Multiplies the scores; 0, or of a size from 2^-126 to 2^127. Usually
      1 / sqrt(dim). */
  double scale;
  /** Of bf16, fp16 or fp32; 1 to 65536 heads, of 1 to 65536 dimensions each. */
  const mla_tensor *q;
  /** dtype of q; kv_heads divides heads. */
  const mla_tensor *k;
  /** dtype of q; 1 to 65536 dimensions, others than k's perhaps. */
  const mla_tensor *v;
  /** Of bf16, fp16, fp32, or fp8_e4m3 with an output_scale; must not overlap an input,
      lse or workspace. A query without keys gets 0. Rows of no request are not written. */
  const mla_tensor *out;
  /** fp32: natural logarithm of the sum of exp(score * scale), -inf for a query without
      keys. May be NULL. */
  const mla_tensor *lse;
  /** With cu_seqlens_q: how many requests it has; may be 0. Without: 0, or with 3
      dimensions 1, with 4 the batch. */
  int32_t num_requests;
  /** MLA_ISA_*, as in mla_backend_config. */
  int32_t max_isa;
  /** [num_requests + 1] offsets into the rows of q, from 0, never falling. NULL with 4
      dimensions, where an element of the batch is a request; may be NULL with 3: all
      rows are one request's. */
  const int32_t *cu_seqlens_q;
  /** [num_requests + 1] offsets into the rows of k and v, likewise: those of request i
      are its keys. NULL with 4 dimensions: the keys of the batch's element. May be NULL
      with 3: then the offsets are those of cu_seqlens_q, for which k must have as many rows as q;
      or, without cu_seqlens_q or with k_begin or k_count, all rows are each request's. */
  const int32_t *cu_seqlens_k;
  /** [requests] the first of its keys that a request sees, as if those before did not
      exist, and how many. May be NULL: the first of all, and all from there on. Requests'
      keys may overlap, and lie in any order: sequences share a cache. */
  const int32_t *k_begin;
  const int32_t *k_count;
  /** Scratch of at least mla_attention_workspace_size() bytes; may be NULL with size
      0: then the library's own is used. */
  void *workspace;
  int64_t workspace_size;
  /** NULL on the CPU. */
  void *stream;
  /** Static scale of a quantized `out`: out = result / *output_scale, saturated;
      from 2^-126 to 2^126; only and always with an fp8_e4m3 out. May be
      NULL. */
  const float *output_scale;
} mla_attention_args;

#define MLA_ATTENTION_ARGS_INIT                                                             \
  {sizeof(mla_attention_args), MLA_CAUSAL_NONE, 0.0, NULL, NULL, NULL, NULL, NULL, 0,         \
   MLA_ISA_DEFAULT, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL}

/** Plans of calls like those before are found again, by shapes and lengths; a bounded
    number is kept, until mla_trim(). */
mla_status mla_attention(const mla_attention_args *args);

/** Stores the bytes of workspace that mla_attention() needs for these arguments at the
    present number of threads. They must be what the call will have, workspace aside, which
    is not read. */
mla_status mla_attention_workspace_size(const mla_attention_args *args, int64_t *bytes);

/* ------------------------------------------------------------------------ */
/* 12. The lightning indexer                                                */
/* ------------------------------------------------------------------------ */

/*
 * What DeepSeek Sparse Attention (DeepSeek-V3.2, GLM-5) chooses keys by:
 *
 *     score(t, s) = scale_s * sum_h weights[t][h] * max(0, sum_d q[t][h][d] * k[s][d])
 *
 * over the keys s that token t sees, scale_s that of the cached key, 1 in a plain cache.
 * Norm, rope and the factors of the weights (softmax scale, heads ** -0.5) are the engine's.
 * Numbers are taken as they are: none is rounded before it is multiplied. Products and sums
 * are fp32, d and h ascending: a score is off by at most
 *
 *     (head_dim + heads + 2) * 2^-24 * |scale_s| * sum_h |w_h| sum_d |q_d k_d|
 *
 * beside what comes of numbers and products below 2^-126, which may count as 0. Weights,
 * queries, keys and scales that are not finite make what IEEE 754's sums and products make
 * of them; max(0, NaN) is NaN.
 *
 * A token gets the topk keys of the highest scores; of equal ones, 0 and -0 among them, the
 * earlier; a NaN ranks last, behind -inf; all keys, where it sees no more than topk. Scores
 * are never all kept: memory does not grow with the context, but where tokens are fewer than
 * threads: these share a long context then, and each keeps its best. A token's row has the same
 * bits for any number of threads, in any batch and for any range of rows.
 */

/** How keys lie in an index cache. */
enum {
  /** [num_blocks, block_size, head_dim] of bf16, fp16 or fp32. */
  MLA_INDEX_FORMAT_PLAIN = 0,
  /** vLLM's, SGLang's and DeepGEMM's: [num_blocks, block_size, head_dim + 4] bytes, handed
      in as fp8_e4m3. A block's block_size keys as e4m3, head_dim bytes each, then one fp32 for
      each of them, its scale. The stride of a block's tokens must be head_dim + 4; any
      alignment. */
  MLA_INDEX_FORMAT_FP8_BLOCK = 1
};

/** How the scale of a quantized key or query is made; numbers are divided by it, rounded to
    nearest even and saturated at 448. A NaN stays one and has no part in the scale;
    infinities count there as the largest finite fp32. */
enum {
  /** max(largest |x|, 1e-4) / 448 */
  MLA_INDEX_SCALE_FP32 = 0,
  /** The same, rounded up to a power of two (vLLM: "ue8m0"). */
  MLA_INDEX_SCALE_POWER_OF_TWO = 1
};

/** Puts keys into an index cache (vLLM: indexer_k_quant_and_cache). */
typedef struct mla_index_store_args {
  /** Set by MLA_INDEX_STORE_ARGS_INIT. */
  uint32_t struct_size;
  /** MLA_INDEX_FORMAT_*. */
  int32_t format;
  /** MLA_INDEX_SCALE_*; without effect on a plain cache. */
  int32_t scale_format;
  /** 0, or 1: a key is turned first, multiplied by the Hadamard matrix (Sylvester's) and
      head_dim ** -0.5 in fp32. For a head_dim that is a power of two. */
  int32_t hadamard;
  /** [num_tokens, head_dim] of bf16, fp16 or fp32; head_dim 1 to 65536. */
  const mla_tensor *k;
  /** [num_slots]: token i goes to block slot_mapping[i] / block_size at
      slot_mapping[i] % block_size, nowhere if it is -1. Of tokens with the same
      slot the last has it. Tokens from num_slots on are not read. May be NULL
      where num_slots is 0. */
  const int64_t *slot_mapping;
  int64_t num_slots;
  /** What `format` says, or without block_size where that is 1; rounded to nearest even. Must
      not overlap k. */
  const mla_tensor *index_cache;
  /** NULL: the indexer runs on the CPU. */
  void *stream;
} mla_index_store_args;

#define MLA_INDEX_STORE_ARGS_INIT                                                  \
  {sizeof(mla_index_store_args), MLA_INDEX_FORMAT_PLAIN, MLA_INDEX_SCALE_FP32, 0, \
   NULL, NULL, 0, NULL, NULL}

/** Whatever does not fit is refused before anything is written. */
mla_status mla_index_store(const mla_index_store_args *args);

/** Selects keys for each token of a batch (vLLM: sparse_attn_indexer). */
typedef struct mla_index_select_args {
  /** Set by MLA_INDEX_SELECT_ARGS_INIT. */
  uint32_t struct_size;
  /** 0 to 2^20. */
  int32_t num_requests;
  /** [num_requests + 1] offsets into the rows of q, from 0, never falling: those from
      query_start_loc[i] to query_start_loc[i + 1] are request i's new tokens. */
  const int32_t *query_start_loc;
  /** [num_requests] tokens that each request had before its new ones, 0 or more, fewer than
      2^31 with them. NULL: 0 for all. */
  const int32_t *context_lens;
  /** [rows of q]: how many of its request's keys a token sees, the first ones, 0 to those of
      context and new tokens; of rows that are worked on alone. NULL: new token j of a request,
      from 0, sees context_lens + j + 1. */
  const int32_t *visible_keys;
  /** [num_tokens, heads, head_dim] of bf16, fp16, fp32, or fp8_e4m3 as quantized by the
      engine; 1 to 65536 heads, of 1 to 65536 dimensions each. */
  const mla_tensor *q;
  /** [num_tokens, heads] fp32; of fp8 queries with their scales multiplied in. */
  const mla_tensor *weights;
  /** MLA_INDEX_FORMAT_* of index_cache. */
  int32_t format;
  /** Keys for each token, 1 to 2^20. */
  int32_t topk;
  /** 0, or 1: q, which is not fp8 then, is quantized first as keys are, each head of a token
      with a scale of its own, by which its weight is multiplied. */
  int32_t quantize_q;
  /** MLA_INDEX_SCALE_*; without effect unless quantize_q is 1. */
  int32_t scale_format;
  /** 0, or 1: q, which is not fp8 then, is turned first, as mla_index_store() turns keys, and
      rounded to its dtype, unless it is quantized. */
  int32_t hadamard;
  /** Of block_table. */
  int32_t max_blocks;
  /** What `format` says, or without block_size where that is 1: the keys, those of the new
      tokens, too. */
  const mla_tensor *index_cache;
  /** [num_requests, max_blocks], rows block_table_stride entries apart: key s of request i is
      in block block_table[i * block_table_stride + s / block_size] at s % block_size. Entries
      of keys that no token sees are not read. NULL, with max_blocks 0 and num_requests blocks
      in index_cache: request i has block i alone. */
  const int32_t *block_table;
  int64_t block_table_stride;
  /** Rows of q to work on, for ranks that share them: num_rows of them from first_row on; both
      0: all. A rank without rows makes no call. */
  int64_t first_row;
  int64_t num_rows;
  /** [num_tokens, topk], rows topk_stride entries apart, at least topk: positions of keys in
      their request, ascending, then -1. Rows of no request, and those that are not worked on,
      are not written. Must not overlap another tensor. */
  int32_t *topk_indices;
  int64_t topk_stride;
  /** [num_tokens, topk] fp32: the keys' scores, then -inf; 0 for -0. Must not overlap another
      tensor. May be NULL. */
  const mla_tensor *scores;
  /** Scratch of at least mla_index_workspace_size() bytes; may be NULL with size 0: then the
      library's own is used. */
  void *workspace;
  int64_t workspace_size;
  /** NULL: the indexer runs on the CPU. */
  void *stream;
  /** MLA_ISA_*, as in mla_backend_config. */
  int32_t max_isa;
  uint32_t reserved;
} mla_index_select_args;

#define MLA_INDEX_SELECT_ARGS_INIT                                                            \
  {sizeof(mla_index_select_args), 0, NULL, NULL, NULL, NULL, NULL, MLA_INDEX_FORMAT_PLAIN, 0, \
   0, MLA_INDEX_SCALE_FP32, 0, 0, NULL, NULL, 0, 0, 0, NULL, 0, NULL, NULL, 0, NULL,          \
   MLA_ISA_DEFAULT, 0}

/** Whatever does not fit is refused before anything is written. */
mla_status mla_index_select(const mla_index_select_args *args);

/** Stores the bytes of workspace that mla_index_select() needs for these arguments at the
    present number of threads. They must be what the call will have, workspace aside, which
    is not read. */
mla_status mla_index_workspace_size(const mla_index_select_args *args, int64_t *bytes);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MLA_PREFILL_H */
