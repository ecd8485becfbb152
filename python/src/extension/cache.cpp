#include <optional>
#include <string>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "device_integers.h"
#include "integers.h"
#include "tensor_argument.h"

namespace mla_python {

namespace {

/// Slots for tokens: the host's numbers, copied, or a device's, where only it can read them.
class SlotsArgument {
 public:
  SlotsArgument(nb::handle value, const Place &place, mla_concat_and_cache_args &args) {
    if (place.is_cpu()) {
      const mla_tensor *rows = args.kv_c_normed;
      // One more than there may be: the library says why.
      const std::int64_t most = rows && rows->ndim == 2 ? rows->shape[0] + 1 : INT32_MAX;
      copied_ = int64_array_argument(value, name, static_cast<std::size_t>(most));
      args.slot_mapping = pointer_or_null(copied_);
      args.num_slots = static_cast<std::int64_t>(copied_.size());
      return;
    }
    borrowed_.emplace(value, name, place, 64, 1);
    args.slot_mapping = borrowed_->data<std::int64_t>();
    args.num_slots = borrowed_->size(0);
  }

 private:
  static constexpr const char *name = "slot_mapping";

  std::vector<std::int64_t> copied_;
  std::optional<DeviceIntegers> borrowed_;
};

void concat_and_cache_mla(nb::handle kv_c_normed, nb::handle k_pe, nb::handle kv_cache,
                          nb::handle slot_mapping, nb::handle cache_scale,
                          std::int32_t cache_format, nb::handle k_pe_cache,
                          std::int32_t device_type, std::int32_t device_id, nb::handle stream) {
  mla_concat_and_cache_args args = MLA_CONCAT_AND_CACHE_ARGS_INIT;
  const Place place = place_argument(device_type, device_id, stream);
  args.stream = place.stream;
  const TensorArgument latents(kv_c_normed, "kv_c_normed", args.kv_c_normed, role::input, place);
  const TensorArgument rope(k_pe, "k_pe", args.k_pe, role::input, place);
  TensorArgument cache(kv_cache, "kv_cache", args.kv_cache, role::filled_cache, place);
  cache.drop_heads();
  TensorArgument rope_cache(k_pe_cache, "k_pe_cache", args.k_pe_cache, role::filled_cache, place);
  rope_cache.drop_heads();
  const SlotsArgument slots(slot_mapping, place, args);
  args.cache_scale = float32_argument(cache_scale, "cache_scale");
  args.cache_format = cache_format;
  call_library([&] { return mla_concat_and_cache_mla(&args); });
}

/// Which tokens are gathered: the host's numbers.
class HostTokens {
 public:
  HostTokens(nb::handle block_table, nb::handle cu_seq_lens, nb::handle seq_starts,
             mla_gather_cache_args &args)
      : offsets_(offsets_argument(cu_seq_lens, "cu_seq_lens")),
        starts_(request_numbers_argument(seq_starts, "seq_starts", offsets_, "cu_seq_lens")),
        table_(block_table, "block_table", blocks(block_size_of(args.kv_cache)), no_rows_) {
    args.num_requests = static_cast<std::int32_t>(offsets_.size() - 1);
    args.cu_seq_lens = offsets_.data();
    args.seq_starts = pointer_or_null(starts_);
    table_.fill_blocks(args);
  }

 private:
  std::vector<std::int64_t> blocks(std::int64_t block_size) const {
    std::vector<std::int64_t> counts;
    for (std::size_t i = 0; i + 1 < offsets_.size(); ++i) {
      const std::int64_t tokens = std::int64_t{offsets_[i + 1]} - offsets_[i];
      counts.push_back(blocks_reached(starts_.empty() ? 0 : starts_[i], tokens, block_size));
    }
    return counts;
  }

  std::vector<std::int32_t> offsets_, starts_;
  const std::vector<std::int32_t> no_rows_{};
  TableArgument table_;
};

/// The same of a device's, where only it can read them.
class DeviceTokens {
 public:
  DeviceTokens(nb::handle block_table, nb::handle cu_seq_lens, nb::handle seq_starts,
               const Place &place, mla_gather_cache_args &args)
      : offsets_(cu_seq_lens, "cu_seq_lens", place, 32, 1),
        table_(block_table, "block_table", place, requests()) {
    args.num_requests = narrowed<std::int32_t>(requests(), "cu_seq_lens.shape[0] - 1");
    args.cu_seq_lens = offsets_.data<std::int32_t>();
    table_.fill_blocks(args);
    if (seq_starts.is_none()) return;
    starts_.emplace(seq_starts, "seq_starts", place, 32, 1);
    const std::int64_t rows = starts_->size(0);
    if (rows != requests()) refuse_rows(rows, requests(), "seq_starts");
    args.seq_starts = starts_->data<std::int32_t>();
  }

 private:
  std::int64_t requests() const {
    if (offsets_.size(0) == 0) {
      raise(PyExc_ValueError, "cu_seq_lens: is empty, must have one entry for each request and one "
                              "for the end");
    }
    return offsets_.size(0) - 1;
  }

  DeviceIntegers offsets_;
  DeviceTable table_;
  std::optional<DeviceIntegers> starts_;
};

void gather_and_maybe_dequant_cache(nb::handle kv_cache, nb::handle dst, nb::handle block_table,
                                    nb::handle cu_seq_lens, nb::handle seq_starts,
                                    nb::handle cache_scale, std::int32_t cache_format,
                                    nb::handle k_pe_cache, nb::handle k_pe,
                                    std::int32_t device_type, std::int32_t device_id,
                                    nb::handle stream) {
  mla_gather_cache_args args = MLA_GATHER_CACHE_ARGS_INIT;
  const Place place = place_argument(device_type, device_id, stream);
  args.stream = place.stream;
  TensorArgument cache(kv_cache, "kv_cache", args.kv_cache, role::cache, place);
  cache.drop_heads();
  TensorArgument rope_cache(k_pe_cache, "k_pe_cache", args.k_pe_cache, role::cache, place);
  rope_cache.drop_heads();
  const TensorArgument rows(dst, "dst", args.dst, role::gathered, place);
  const TensorArgument rope(k_pe, "k_pe", args.k_pe, role::gathered, place);
  std::optional<HostTokens> host;
  std::optional<DeviceTokens> device;
  if (place.is_cpu()) {
    host.emplace(block_table, cu_seq_lens, seq_starts, args);
  } else {
    device.emplace(block_table, cu_seq_lens, seq_starts, place, args);
  }
  args.cache_scale = float32_argument(cache_scale, "cache_scale");
  args.cache_format = cache_format;
  call_library([&] { return mla_gather_and_maybe_dequant_cache(&args); });
}

}  // namespace

void bind_cache(nb::module_ &module) {
  define(module, "concat_and_cache_mla", &concat_and_cache_mla);
  define(module, "gather_and_maybe_dequant_cache", &gather_and_maybe_dequant_cache);
}

}  // namespace mla_python
