// Tokens out of a cache on a device: what the CPU reads.
//
// SPDX-License-Identifier: Apache-2.0
#include "gathering.hpp"

#include "device_attention.hpp"

namespace {

using test::Array;
using test::CapturedGraph;
using test::DeviceArray;
using test::GatherProblem;
using test::GatherShape;
using test::Stream;

const std::vector<std::int32_t> lengths{7, 0, 0, 30, 1, 0};

/// A problem's tensors and numbers in memory of the current device.
class DeviceGather {
 public:
  explicit DeviceGather(GatherProblem& host, CUdevice device = 0, std::size_t shift = 0)
      : host_(host),
        cache(host.cache, device, shift),
        rope_cache(host.rope_cache, device, shift),
        dst(host.dst, device, shift / 4 * 4),
        k_pe(host.k_pe, device, shift / 4 * 4),
        table(host.block_table.size() * 4),
        offsets(host.cu_seq_lens.size() * 4),
        starts(host.seq_starts.size() * 4) {}

  void upload(CUstream stream) const {
    cache.upload(host_.cache, stream), rope_cache.upload(host_.rope_cache, stream);
    dst.upload(host_.dst, stream), k_pe.upload(host_.k_pe, stream);
    put(table, host_.block_table, stream), put(offsets, host_.cu_seq_lens, stream);
    put(starts, host_.seq_starts, stream);
  }
  void download(CUstream stream) const { dst.download(host_.dst, stream), k_pe.download(host_.k_pe, stream); }

  mla_gather_cache_args args(CUstream stream) const {
    mla_gather_cache_args a = host_.args();
    a.kv_cache = &cache.view(), a.dst = &dst.view();
    if (a.k_pe_cache != nullptr) a.k_pe_cache = &rope_cache.view();
    if (a.k_pe != nullptr) a.k_pe = &k_pe.view();
    if (a.block_table != nullptr) a.block_table = table.pointer<std::int32_t>();
    a.cu_seq_lens = offsets.pointer<std::int32_t>(), a.seq_starts = starts.pointer<std::int32_t>();
    a.stream = stream;
    return a;
  }
  void launch(CUstream stream) const {
    const mla_gather_cache_args a = args(stream);
    mla::check(mla_gather_and_maybe_dequant_cache(&a));
  }

  static void put(const test::DeviceBytes& memory, const test::Offsets& numbers, CUstream stream) {
    if (!numbers.empty()) DRIVER(cuMemcpyHtoDAsync_v2(memory.address(), numbers.data(), numbers.size() * 4, stream));
  }

 private:
  GatherProblem& host_;

 public:
  DeviceArray cache, rope_cache, dst, k_pe;
  test::DeviceBytes table, offsets, starts;
};

void run(GatherProblem& problem, const std::string& what, CUdevice device = 0, std::size_t shift = 0) {
  const Stream stream;
  const DeviceGather on_device(problem, device, shift);
  on_device.upload(stream);
  on_device.launch(stream);
  on_device.download(stream);
  stream.synchronize();
  problem.expect_gathered(what);
}

void every_format() {
  const test::Primary primary;
  for (const auto& [name, shape] : test::gather_shapes()) {
    GatherProblem problem(shape, lengths, 5);
    run(problem, name);
    if (shape.is_plain()) continue;
    // Of fp8_ds_mla any address will do.
    GatherProblem shifted(shape, lengths, 6);
    run(shifted, name + " at odd addresses", 0, 3);
  }
}

void nothing() {
  const test::Primary primary;
  const GatherShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 24, 8, 4};
  for (const std::vector<std::int32_t>& none : {std::vector<std::int32_t>{}, {0}, {0, 0}}) {
    GatherProblem problem(shape, none, 1);
    run(problem, "no rows");
  }
}

/// What is out of range is left out, and nothing else.
void wrong_numbers() {
  const test::Primary primary;
  const GatherShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 24, 8, 4};
  for (const std::int32_t wrong : {-1, 23, INT32_MAX, INT32_MIN}) {
    GatherProblem problem(shape, {9, 5}, 1);
    problem.seq_starts = {4, 0};
    for (std::int32_t& block : problem.block_table) block = 3;
    problem.block_table[2] = wrong;
    const Stream stream;
    const DeviceGather on_device(problem);
    on_device.upload(stream);
    on_device.launch(stream);
    on_device.download(stream);
    stream.synchronize();
    for (std::int64_t row = 0; row < 15; ++row) {
      const bool is_written = row < 14 && !(row >= 4 && row < 8);
      for (std::int64_t d = 0; d < 32; ++d) {
        const auto* bytes = problem.dst.bytes().data() + (row * 32 + d) * 2;
        const bool is_as_before = bytes[0] == 0xFF && bytes[1] == 0xFF;
        EXPECT(is_as_before != is_written, "%d: row %d", wrong, static_cast<int>(row));
      }
    }
  }
}

/// Captured once, replayed on another cache by other numbers.
void graphs() {
  const test::Primary primary;
  const Stream stream;
  const GatherShape shape{MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT8_E4M3FN, 64, 16, 8};
  GatherProblem problem(shape, lengths, 7);
  const DeviceGather on_device(problem);
  const CapturedGraph graph(stream, [&] { on_device.launch(stream); });
  for (std::int32_t replay = 0; replay < 3; ++replay) {
    on_device.upload(stream);
    graph.launch(stream);
    on_device.download(stream);
    stream.synchronize();
    problem.expect_gathered("replay " + std::to_string(replay));
    problem.cache.fill(problem.random, 8);
    for (std::int32_t& block : problem.block_table) block = (std::max(block, 0) + 5) % 23;
    problem.cu_seq_lens = {0, 6 - replay, 6 - replay, 7, 30, 30, 31};
    problem.seq_starts = {0, 9, 1, 2 + replay, 3, 0};
    problem.dst = Array(shape.dtype, {problem.dst.size(0), 80});
  }
}

void two_devices() {
  const GatherShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT8_E4M3FN, 64, 32, 4};
  for (const CUdevice device : {0, 1}) {
    const test::Primary primary(device);
    GatherProblem problem(shape, lengths, 11);
    run(problem, "device " + std::to_string(device), device);
  }
}

void refusals() {
  const test::Primary primary;
  const GatherShape shape{MLA_DTYPE_BFLOAT16, MLA_DTYPE_BFLOAT16, 24, 8, 4, MLA_CACHE_FORMAT_PLAIN, true, true};
  GatherProblem host(shape, lengths, 1);
  const Stream stream;
  const DeviceGather on_device(host);
  const auto refused = [&](auto change, const char* text) {
    mla_gather_cache_args args = on_device.args(stream);
    change(args);
    const mla_status status = mla_gather_and_maybe_dequant_cache(&args);
    EXPECT(status == MLA_ERROR_INVALID_ARGUMENT && std::strstr(mla_last_error_message(), text), "%d, %s; not: %s",
           static_cast<int>(status), mla_last_error_message(), text);
  };
  using Args = mla_gather_cache_args;
  const auto shifted = [](const std::int32_t* numbers) {
    return reinterpret_cast<const std::int32_t*>(reinterpret_cast<std::uintptr_t>(numbers) + 2);
  };
  refused([&](Args& a) { a.block_table = host.block_table.data(); }, "block_table = 0x");
  refused([&](Args& a) { a.cu_seq_lens = host.cu_seq_lens.data(); }, "cu_seq_lens = 0x");
  refused([&](Args& a) { a.seq_starts = host.seq_starts.data(); }, "seq_starts = 0x");
  refused([&](Args& a) { a.block_table = shifted(a.block_table); }, "must be aligned to 4 bytes");
  refused([&](Args& a) { a.cu_seq_lens = shifted(a.cu_seq_lens); }, "must be aligned to 4 bytes");
  refused([&](Args& a) { a.seq_starts = shifted(a.seq_starts); }, "must be aligned to 4 bytes");
  refused([&](Args& a) { a.cu_seq_lens = nullptr; }, "cu_seq_lens = NULL");
  refused([&](Args& a) { a.block_table_stride = 1; }, "block_table_stride = 1: must be at least max_blocks");
  refused([&](Args& a) { a.num_requests = -1; }, "num_requests = -1");
  refused([&](Args& a) { a.dst = &host.dst.view(); }, "dst.device_type = 1: must be 2 (CUDA)");
  refused([&](Args& a) { a.k_pe = &host.k_pe.view(); }, "k_pe.device_type = 1: must be 2 (CUDA)");
  refused([&](Args& a) { a.k_pe_cache = &host.rope_cache.view(); }, "k_pe_cache.device_type = 1: must be 2 (CUDA)");
  // Said to be there, and is not.
  for (auto [field, array, name] : {std::make_tuple(&Args::dst, &host.dst, "dst.data = 0x"),
                                    std::make_tuple(&Args::k_pe, &host.k_pe, "k_pe.data = 0x"),
                                    std::make_tuple(&Args::kv_cache, &host.cache, "kv_cache.data = 0x"),
                                    std::make_tuple(&Args::k_pe_cache, &host.rope_cache, "k_pe_cache.data = 0x")}) {
    mla_tensor lying = array->view();
    lying.device_type = MLA_DEVICE_CUDA;
    refused([&, field = field](Args& a) { a.*field = &lying; }, name);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return test::run_on("90,80", argc, argv,
                      {{"device: every format", every_format},
                       {"device: nothing to gather", nothing},
                       {"device: numbers that are out of range", wrong_numbers},
                       {"device: captured", graphs},
                       {"device: two devices", two_devices},
                       {"device: numbers and tensors that are refused", refusals}});
}
