/* A ggml backend of kind ACCEL, on host buffers: attention by libmlaprefill, and nothing else.
   ggml loads it from the file that GGML_BACKEND_PATH names. */
#include <cstring>
#include <new>

#include "Attention.hpp"
#include "Delegate.hpp"
#include "Node.hpp"
#include "Runs.hpp"
#include "Tally.hpp"
#include "Threads.hpp"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"

static_assert(GGML_BACKEND_API_VERSION == 2, "written for version 2 of ggml's backend API");

namespace mla_ggml {

namespace {

/// Parts of a row's keys that are worth merging: each is a call of its own.
constexpr int64_t most_runs = 4;

struct Context {
  SharedThreads shared_threads;
  int32_t threads = 1;
  Attention attention;
  Delegate delegate;
  Visible visible;
};

/// Whether rows have little in common, such as one of each of many sequences.
bool has_few_queries(const Node &node, const Passes &passes) {
  int64_t rows = 0, keys = 0;
  for (const auto &pass : passes) {
    for (const Request &it : pass) {
      rows += it.rows * (it.end_key - it.first_key);
      keys += it.end_key - it.first_key;
    }
  }
  return rows * node.heads < keys * node.kv_heads * node.least_queries();
}

/// Whether ggml's way with scattered rows is the faster one: here each row's keys are packed for it alone.
bool sees_much(const Node &node, const std::vector<ScatteredRow> &rows) {
  // In what a query's products with a key take here: packing the key, and ggml's products. In tiles of
  // rows ggml goes through all keys, else through those that are seen.
  constexpr int64_t packing = 20, in_tiles = 3, by_row = 6, rows_of_tile = 64;
  const int64_t queries = node.heads / node.kv_heads;
  int64_t keys = 0;
  for (const ScatteredRow &row : rows) keys += row.keys;
  const int64_t all_keys = static_cast<int64_t>(rows.size()) * node.keys;
  const int64_t by_ggml = node.rows < rows_of_tile ? keys * by_row : all_keys * in_tiles;
  return keys * (packing + queries) > by_ggml * queries;
}

/// Why what a node's mask holds is not for the library; null where it is.
const char *reason_against_mask(const Node &node, Visible &visible) {
  if (!read_mask(node, most_runs, visible)) return "mask of another kind";
  if (sees_much(node, visible.scattered)) return "a mask with many holes";
  return has_few_queries(node, visible.passes) ? few_queries : nullptr;
}

ggml_status compute_node(Context &context, ggml_cgraph *graph, int index) {
  const Node node(graph->nodes[index]);
  if (const char *reason = reason_against_mask(node, context.visible)) {
    Tally::shared().delegated(reason);
    return context.delegate.compute(graph, index, context.threads);
  }
  const mla_status status = context.attention.run(node, context.visible);
  if (status == MLA_OK) {
    Tally::shared().served();
    return GGML_STATUS_SUCCESS;
  }
  GGML_LOG_ERROR("mla: %s: %s\n", mla_status_name(status), mla_last_error_message());
  return status == MLA_ERROR_OUT_OF_MEMORY ? GGML_STATUS_ALLOC_FAILED : GGML_STATUS_FAILED;
}

ggml_status compute(ggml_backend_t backend, ggml_cgraph *graph) {
  auto &context = *static_cast<Context *>(backend->context);
  use_threads(context.threads);
  try {
    for (int i = 0; i < graph->n_nodes; ++i) {
      const ggml_tensor *node = graph->nodes[i];
      if (node->op != GGML_OP_FLASH_ATTN_EXT || (node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) continue;
      const ggml_status status = compute_node(context, graph, i);
      if (status != GGML_STATUS_SUCCESS) return status;
    }
  } catch (const std::bad_alloc &) {
    GGML_LOG_ERROR("mla: no memory for an attention node\n");
    return GGML_STATUS_ALLOC_FAILED;
  }
  return GGML_STATUS_SUCCESS;
}

bool supports(ggml_backend_dev_t, const ggml_tensor *op) {
  switch (op->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE:
      return true;
    case GGML_OP_FLASH_ATTN_EXT: break;
    default: return false;
  }
  const char *reason = reason_against(op);
  if (reason) Tally::shared().declined(reason);
  return reason == nullptr;
}

const char *backend_name(ggml_backend_t) { return "MLA"; }

void release(ggml_backend_t backend) {
  delete static_cast<Context *>(backend->context);
  delete backend;
  Tally::shared().tell();
}

void set_n_threads(ggml_backend_t backend, int threads) {
  static_cast<Context *>(backend->context)->threads = threads;
}

ggml_backend_t create(ggml_backend_dev_t device, const char *) {
  static ggml_guid guid = {0x9d, 0x1f, 0x52, 0x0b, 0x6a, 0x33, 0x4e, 0xc4, 0xb1, 0x72, 0x08, 0xe5, 0x6d, 0x6c, 0x61, 0x01};
  ggml_backend_i calls = {};
  calls.get_name = backend_name;
  calls.free = release;
  calls.graph_compute = compute;
  try {
    auto context = std::make_unique<Context>();
    context->threads = mla_get_num_threads();
    auto *backend = new ggml_backend{&guid, calls, device, context.get()};
    context.release();
    return backend;
  } catch (const std::bad_alloc &) {
    return nullptr;
  }
}

const char *device_name(ggml_backend_dev_t) { return "MLA"; }
const char *description(ggml_backend_dev_t) { return mla_cpu_summary(); }
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }
void no_memory_of_its_own(ggml_backend_dev_t, size_t *free, size_t *total) { *free = *total = 0; }

void properties(ggml_backend_dev_t device, ggml_backend_dev_props *props) {
  *props = {};
  props->name = device_name(device);
  props->description = description(device);
  props->type = device_type(device);
  props->caps.buffer_from_host_ptr = true;
  props->caps.mmap_support = true;
}

ggml_backend_device_i device_calls() {
  ggml_backend_device_i calls = {};
  calls.get_name = device_name;
  calls.get_description = description;
  calls.get_memory = no_memory_of_its_own;
  calls.get_type = device_type;
  calls.get_props = properties;
  calls.init_backend = create;
  calls.get_buffer_type = [](ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); };
  calls.buffer_from_host_ptr = [](ggml_backend_dev_t, void *memory, size_t size, size_t) {
    return ggml_backend_cpu_buffer_from_ptr(memory, size);
  };
  calls.supports_op = supports;
  calls.supports_buft = [](ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
    return ggml_backend_buft_is_host(type);
  };
  return calls;
}

ggml_backend_dev_t device(ggml_backend_reg_t registration, size_t) {
  static ggml_backend_device device = {device_calls(), registration, nullptr};
  return &device;
}

void *proc_address(ggml_backend_reg_t, const char *name) {
  if (std::strcmp(name, "ggml_backend_set_n_threads") == 0) return reinterpret_cast<void *>(set_n_threads);
  return nullptr;
}

}  // namespace

}  // namespace mla_ggml

/// What ggml looks for. Null, after a line to the log, where the host has another ggml than this was
/// built for: its structs may be others.
extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
  using namespace mla_ggml;
  if (std::strcmp(ggml_version(), MLA_GGML_VERSION) != 0) {
    GGML_LOG_ERROR("mla: not used: built for ggml %s, this is %s\n", MLA_GGML_VERSION, ggml_version());
    return nullptr;
  }
  static const ggml_backend_reg_i calls = {[](ggml_backend_reg_t) { return "MLA"; },
                                           [](ggml_backend_reg_t) -> size_t { return 1; }, device, proc_address};
  static ggml_backend_reg registration = {GGML_BACKEND_API_VERSION, calls, nullptr};
  static const bool told = [] {
    GGML_LOG_INFO("mla: attention by libmlaprefill %s: %s\n", mla_version(), mla_cpu_summary());
    return true;
  }();
  (void)told;
  return &registration;
}
