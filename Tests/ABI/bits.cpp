// The same bits whatever the number of threads, the other requests in the batch,
// the host's parallel loop, or the run.
//
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "support.hpp"

namespace {

struct Threads {
  explicit Threads(std::int32_t count) { mla::check(mla_set_num_threads(count)); }
  ~Threads() { mla_set_num_threads(0); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
};

const test::Model model{2, 128, 64, 128, 512};

/// Seven requests, empty ones among them where the backend takes such; long
/// contexts, so that FLASHINFER splits.
test::Attention problem(bool causal, std::int32_t dtype, const std::string& backend) {
  const std::int32_t least = test::refuses_empty_requests(backend) ? 1 : 0;
  const std::vector<std::int32_t> new_lengths{33, 1, least, 150, 64, 7, 97};
  const std::vector<std::int32_t> context_lengths{900, least, 20, 1500, 64, 3, 1};
  return causal ? test::Attention::new_tokens(model, dtype, new_lengths, 11)
                : test::Attention::context(model, dtype, new_lengths, context_lengths, 12);
}

void poison(test::Attention& step) {
  const test::Array& out = step.out;
  step.out = test::Array(out.view().dtype, {out.size(0), out.size(1), out.size(2)});
  step.lse = test::Array(MLA_DTYPE_FLOAT32, {step.lse.size(0), step.lse.size(1)});
}

void expect_same(test::Attention& step, const test::Attention& expected, const std::string& what) {
  EXPECT(step.out.bytes() == expected.out.bytes(), "%s: other bits in out", what.c_str());
  EXPECT(step.lse.bytes() == expected.lse.bytes(), "%s: other bits in lse", what.c_str());
}

void threads_and_runs(bool causal, std::int32_t dtype) {
  test::each_backend(model, [&](mla::backend& backend, const std::string& what) {
    test::Attention step = problem(causal, dtype, what);
    {
      const Threads one(1);
      step.run(backend);
    }
    const test::Attention expected = step;
    for (std::int32_t count : {1, 2, 3, 5, 5}) {
      const Threads many(count);
      poison(step);
      step.run(backend);
      expect_same(step, expected, what + " on " + std::to_string(count) + " threads");
    }
  });
}

/// A batch of one: request `r` of `whole`, its tensors views into the batch's.
void alone(const test::Attention& whole, std::size_t r, mla::backend& backend,
           const std::string& what) {
  const std::int64_t q0 = whole.q_loc[r], q1 = whole.q_loc[r + 1];
  const std::int64_t k0 = whole.kv_loc[r], k1 = whole.kv_loc[r + 1];
  const test::Offsets q_loc{0, static_cast<std::int32_t>(q1 - q0)};
  const test::Offsets kv_loc{0, static_cast<std::int32_t>(k1 - k0)};
  test::Array out(whole.q.view().dtype, {q1 - q0, whole.model.heads, whole.model.v});
  test::Array lse(MLA_DTYPE_FLOAT32, {whole.model.heads, q1 - q0});
  const mla::tensor q = whole.q.view().narrow(0, q0, q1), k = whole.k.view().narrow(0, k0, k1),
                    v = whole.v.view().narrow(0, k0, k1);
  backend.prepare_metadata(q_loc);
  if (whole.causal) {
    backend.run_prefill_new_tokens(q, k, v, out.view(), &lse.view());
  } else {
    mla_context_chunk chunk = MLA_CONTEXT_CHUNK_INIT;
    chunk.num_requests = 1;
    chunk.query_start_loc = q_loc.data();
    chunk.cu_seq_lens = kv_loc.data();
    backend.run_prefill_context_chunk(chunk, q, k, v, out.view(), lse.view());
  }
  const auto bits = [](double value) {
    std::uint64_t raw;
    std::memcpy(&raw, &value, sizeof(raw));
    return raw;
  };
  out.each([&](std::int64_t i, std::int64_t j, std::int64_t d) {
    EXPECT(bits(out.at(i, j, d)) == bits(whole.out.at(q0 + i, j, d)),
           "%s: request %zu alone has other bits in out", what.c_str(), r);
  });
  lse.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
    EXPECT(bits(lse.at(i, j)) == bits(whole.lse.at(i, q0 + j)),
           "%s: request %zu alone has other bits in lse", what.c_str(), r);
  });
}

void alone_or_in_a_batch(bool causal, std::int32_t dtype) {
  test::each_backend(model, [&](mla::backend& backend, const std::string& what) {
    test::Attention step = problem(causal, dtype, what);
    step.run(backend);
    for (std::size_t r = 0; r + 1 < step.q_loc.size(); ++r) alone(step, r, backend, what);
  });
}

/// Last piece first, all on the calling thread.
void backwards(void*, std::int64_t count, mla_parallel_task task, void* task_context) {
  for (std::int64_t i = count; i-- > 0;) task(task_context, i);
}

void one_thread_each(void* calls, std::int64_t count, mla_parallel_task task, void* task_context) {
  ++*static_cast<std::int64_t*>(calls);
  std::vector<std::thread> threads;
  for (std::int64_t i = 0; i < count; ++i) threads.emplace_back(task, task_context, i);
  for (std::thread& thread : threads) thread.join();
}

void host_parallel_for(bool causal, std::int32_t dtype) {
  test::each_backend(model, [&](mla::backend& backend, const std::string& what) {
    test::Attention step = problem(causal, dtype, what);
    step.run(backend);
    const test::Attention expected = step;
    const Threads four(4);
    std::int64_t calls = 0;
    poison(step);
    mla::check(mla_set_parallel_for(one_thread_each, &calls));
    step.run(backend);
    mla::check(mla_set_parallel_for(backwards, nullptr));
    expect_same(step, expected, what + " on the host's threads");
    EXPECT(calls > 0, "%s: the host's loop was not called", what.c_str());
    poison(step);
    step.run(backend);
    mla::check(mla_set_parallel_for(nullptr, nullptr));
    expect_same(step, expected, what + " in a serial loop of the host's");
#ifdef _OPENMP
    poison(step);
    mla::use_openmp_threads();
    step.run(backend);
    mla::check(mla_set_parallel_for(nullptr, nullptr));
    expect_same(step, expected, what + " on OpenMP's threads");
#endif
  });
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases;
  for (std::int32_t dtype : {MLA_DTYPE_BFLOAT16, MLA_DTYPE_FLOAT16, MLA_DTYPE_FLOAT32}) {
    for (const bool causal : {true, false}) {
      const std::string what =
          std::string(causal ? " new tokens " : " context ") + test::dtype_name(dtype);
      cases.push_back({"threads and runs" + what, [=] { threads_and_runs(causal, dtype); }});
      cases.push_back({"alone or in a batch" + what, [=] { alone_or_in_a_batch(causal, dtype); }});
      cases.push_back({"host parallel_for" + what, [=] { host_parallel_for(causal, dtype); }});
    }
  }
  return test::run(argc, argv, cases);
}
