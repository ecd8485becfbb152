// SPDX-License-Identifier: Apache-2.0
#include "devices.hpp"

#include "throws.hpp"

namespace test {
namespace {

/// Runs on CUDA device 2, where it notes what it gets.
struct OnDevice {
  explicit OnDevice(const mla_backend_config& config) : id(config.device_id) {}
  static bool supports_device(std::int32_t type, std::int32_t id) {
    if (id == 9) throw std::runtime_error("device 9 has gone");
    return type == MLA_DEVICE_CUDA && id == 2;
  }
  void run_prefill_new_tokens(const mla_new_tokens_args& args) const { note(args); }
  void run_prefill_context_chunk(const mla_context_chunk_args& args) const { note(args); }

  template <class Args>
  void note(const Args& args) const {
    CHECK(id == 2 && args.q->device_type == MLA_DEVICE_CUDA && args.out->device_id == 2);
    stream = args.stream;
    out = args.out->data;
  }

  std::int32_t id;
  static inline void *stream, *out;
};

/// Does not say where it runs.
struct Silent : OnDevice {
  using OnDevice::OnDevice;
  static bool supports_device() { return true; }
};

}  // namespace

void wrapper_devices() {
  mla::register_backend<OnDevice>("ON_DEVICE");
  const Model model;
  mla_backend_config config = model.config();
  config.device_type = MLA_DEVICE_CUDA;
  config.device_id = 1;
  expect_throws(MLA_ERROR_UNSUPPORTED_HARDWARE, "device_id = 1",
                [&] { mla::backend("ON_DEVICE", config); });
  config.device_id = 9;
  expect_throws(MLA_ERROR_UNSUPPORTED_HARDWARE, "device 9 has gone",
                [&] { mla::backend("ON_DEVICE", config); });
  config.device_id = 2;
  expect_throws(MLA_ERROR_UNSUPPORTED_HARDWARE, "does not run", [&] {
    mla::override_backend<Silent>("CPU");
    mla::backend("CPU", config);
  });
  mla::check(mla_clear_override("CPU"));
  mla::backend backend("ON_DEVICE", config);
  backend.prepare_metadata(Offsets{0, 3});
  // Addresses of nothing: the first of each is 4 KiB behind the one before.
  const auto at = [](std::uintptr_t page) {
    return reinterpret_cast<mla::bfloat16*>((std::uintptr_t{1} << 46) + page * 4096);
  };
  const auto view = [&](std::uintptr_t page, std::int64_t dim) {
    return mla::tensor(at(page), {3, model.heads, dim}).on(MLA_DEVICE_CUDA, 2);
  };
  const mla::tensor q = view(0, model.qk()), k = view(100, model.qk()), v = view(200, model.v),
                    out = view(300, model.v);
  const mla::tensor lse = mla::tensor(reinterpret_cast<float*>(at(400)), {model.heads, 3})
                              .on(MLA_DEVICE_CUDA, 2);
  backend.run_prefill_new_tokens(q, k, v, out, &lse, {at(500), 64}, at(600));
  CHECK(OnDevice::stream == at(600) && OnDevice::out == at(300));
  const Offsets offsets{0, 3};
  mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
  chunk.num_requests = 1;
  chunk.query_start_loc = chunk.cu_seq_lens = offsets.data();
  backend.run_prefill_context_chunk(chunk, q, k, v, view(301, model.v), lse, {}, at(601));
  CHECK(OnDevice::stream == at(601) && OnDevice::out == at(301));
  CHECK(out.narrow(0, 1, 2).device_id == 2);
  expect_throws(MLA_ERROR_INVALID_ARGUMENT, "v.device_id = 1", [&] {
    backend.run_prefill_new_tokens(q, k, v.on(MLA_DEVICE_CUDA, 1), out);
  });
  mla::check(mla_remove_backend("ON_DEVICE"));
}

}  // namespace test
