// The library inside a process: CPU report, threads, fork, several threads on
// one object, log.
//
// SPDX-License-Identifier: Apache-2.0
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "support.hpp"

namespace {

void versions() {
  CHECK(mla_abi_version() == MLA_ABI_VERSION);
  char expected[32];
  std::snprintf(expected, sizeof(expected), "%d.%d.%d", MLA_VERSION_MAJOR, MLA_VERSION_MINOR,
                MLA_VERSION_PATCH);
  CHECK(std::strcmp(mla_version(), expected) == 0);
#define CHECK_STATUS(status) CHECK(std::strcmp(mla_status_name(status), #status) == 0)
  CHECK_STATUS(MLA_OK);
  CHECK_STATUS(MLA_ERROR_INVALID_ARGUMENT);
  CHECK_STATUS(MLA_ERROR_UNSUPPORTED_CONFIGURATION);
  CHECK_STATUS(MLA_ERROR_UNSUPPORTED_HARDWARE);
  CHECK_STATUS(MLA_ERROR_NOT_REGISTERED);
  CHECK_STATUS(MLA_ERROR_OUT_OF_MEMORY);
  CHECK_STATUS(MLA_ERROR_INTERNAL);
  CHECK(std::strcmp(mla_status_name(-7), "unknown") == 0);
  const char* const tables[] = {"portable", "avx2", "avx512", "avx512_bf16", "amx", "neon", "neon_bf16"};
  for (std::int32_t isa = MLA_ISA_PORTABLE; isa <= MLA_ISA_NEON_BF16; ++isa) {
    CHECK(std::strcmp(mla_isa_name(isa), tables[isa - MLA_ISA_PORTABLE]) == 0);
  }
  CHECK(std::strcmp(mla_isa_name(99), "unknown") == 0);
}

/// MLA_EXPECT_ISA: the table that whoever runs this expects to be in use.
void cpu() {
  const mla_cpu_info info = test::cpu_info();
#if defined(__aarch64__)
  // Every 64-bit Arm Linux has vectors.
  CHECK(info.best_isa == MLA_ISA_NEON || info.best_isa == MLA_ISA_NEON_BF16);
  CHECK((info.best_isa == MLA_ISA_NEON_BF16) == ((info.features & MLA_CPU_BF16) != 0));
#else
  CHECK(info.best_isa >= MLA_ISA_PORTABLE && info.best_isa <= MLA_ISA_AMX);
#endif
  CHECK(info.isa >= MLA_ISA_PORTABLE && info.isa <= info.best_isa);
  for (std::int32_t isa : {info.bf16_isa, info.fp16_isa, info.fp32_isa}) {
    CHECK(isa >= MLA_ISA_PORTABLE && isa <= info.isa);
  }
  CHECK(info.num_processors >= 1);
  CHECK(std::strstr(mla_cpu_summary(), mla_isa_name(info.isa)) != nullptr);
  const char* expected = std::getenv("MLA_EXPECT_ISA");
  EXPECT(expected == nullptr || std::strcmp(expected, mla_isa_name(info.isa)) == 0,
         "the table in use is %s", mla_isa_name(info.isa));
}

void last_error_is_of_the_latest_failure() {
  for (std::int32_t wrong : {-1, 1025, -2}) {
    CHECK(mla_set_num_threads(wrong) == MLA_ERROR_INVALID_ARGUMENT);
    CHECK(std::strstr(mla_last_error_message(), std::to_string(wrong).c_str()) != nullptr);
  }
  mla_set_last_error_message(nullptr);
}

void last_error_is_of_the_thread() {
  mla_set_last_error_message("mine");
  bool starts_empty = false;
  std::thread([&] {
    starts_empty = std::strcmp(mla_last_error_message(), "") == 0;
    mla_set_last_error_message("theirs");
  }).join();
  CHECK(starts_empty);
  CHECK(std::strcmp(mla_last_error_message(), "mine") == 0);
  mla_set_last_error_message(nullptr);
  CHECK(std::strcmp(mla_last_error_message(), "") == 0);
}

void number_of_threads() {
  const std::int32_t before = mla_get_num_threads();
  CHECK(before >= 1);
  mla::check(mla_set_num_threads(3));
  CHECK(mla_get_num_threads() == 3);
  CHECK(mla_set_num_threads(-1) == MLA_ERROR_INVALID_ARGUMENT);
  CHECK(mla_set_num_threads(1025) == MLA_ERROR_INVALID_ARGUMENT);
  CHECK(mla_get_num_threads() == 3);
  mla::check(mla_set_num_threads(0));
  CHECK(mla_get_num_threads() == before);
}

void pinned_caller() {
  cpu_set_t all, one;
  CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
  }
  CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
  // Enough for more than one thread.
  auto step = test::Attention::new_tokens({}, MLA_DTYPE_FLOAT32, {60, 130}, 2);
  mla::backend backend("CPU", step.model.config());
  step.run(backend);
  CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
  test::expect_close(step, test::reference_of(step), "with the calling thread pinned");
}

void in_a_forked_child() {
  auto step = test::Attention::new_tokens({}, MLA_DTYPE_BFLOAT16, {60, 130}, 2);
  mla::check(mla_set_num_threads(3));
  mla::backend backend("FLASHINFER", step.model.config());
  step.run(backend);
  const test::Attention expected = step;
  for (int round = 0; round < 5; ++round) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(60);
      bool same = true;
      try {
        step.run_prepared(backend);
        same = step.out.bytes() == expected.out.bytes();
        mla::backend another("CPU", step.model.config());
        step.run(another);
        test::expect_close(step, test::reference_of(step), "a new backend in the child");
      } catch (const std::exception& failure) {
        std::fprintf(stderr, "%s\n", failure.what());
        same = false;
      }
      _exit(same ? 0 : 1);
    }
    step.run_prepared(backend);
    CHECK(step.out.bytes() == expected.out.bytes());
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
  }
  mla::check(mla_set_num_threads(0));
}

/// Threads of the host's on one object, while another prepares the same batch again.
void threads_on_one_object() {
  const auto model = test::Model{2, 64, 32, 64, 256};
  const auto problem = test::Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {70, 5, 40}, 2);
  const auto context = test::Attention::context(model, MLA_DTYPE_BFLOAT16, {70, 5, 40},
                                                {900, 1, 20}, 3);
  for (const char* name : {"FLASH_ATTN", "FLASHINFER", "TRTLLM_RAGGED", "CPU"}) {
    mla::check(mla_set_num_threads(3));
    mla::backend backend(name, model.config());
    const mla_context_chunk chunks[] = {context.chunk(0)};
    backend.prepare_metadata(problem.q_loc, chunks);
    test::Attention expected = problem, expected_context = context;
    expected.run_prepared(backend);
    expected_context.run_prepared(backend);
    std::vector<std::thread> threads;
    std::vector<int> good(4, 0);
    for (std::size_t t = 0; t < good.size(); ++t) {
      threads.emplace_back([&, t] {
        test::Attention mine = problem, mine_context = context;
        try {
          for (int round = 0; round < 20; ++round) {
            if (t == 0) backend.prepare_metadata(problem.q_loc, chunks);
            mine.run_prepared(backend);
            mine_context.run_prepared(backend);
            good[t] += mine.out.bytes() == expected.out.bytes() &&
                       mine_context.out.bytes() == expected_context.out.bytes();
          }
        } catch (const std::exception& failure) {
          std::fprintf(stderr, "%s\n", failure.what());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    mla::check(mla_set_num_threads(0));
    for (int count : good) EXPECT(count == 20, "%s: %d of 20 runs were right", name, count);
  }
}

/// More threads than the pool ever has, one after the other: what a thread leaves
/// behind goes with it.
void threads_come_and_go() {
  const test::Model model{2, 64, 32, 64, 256};
  const auto problem = test::Attention::new_tokens(model, MLA_DTYPE_FLOAT32, {50}, 2);
  for (int i = 0; i < 30; ++i) {
    std::thread([&] {
      test::Attention mine = problem;
      mla::backend backend("CPU", mine.model.config());
      mine.run(backend);
      mla_set_num_threads(-5);
    }).join();
  }
}

/// Pages of this process in memory.
long resident_pages() {
  long all = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  CHECK(file != nullptr && std::fscanf(file, "%ld %ld", &all, &resident) == 2);
  std::fclose(file);
  return resident;
}

void trimming() {
  const test::Model model{8, 64, 32, 64, 256};
  auto step = test::Attention::new_tokens(model, MLA_DTYPE_FLOAT32, {1500, 700}, 2);
  mla::backend backend("FLASHINFER", model.config());
  mla::trim();
  CHECK(mla::trim() == 0);
  step.run(backend);
  const test::Attention expected = step;
  const long before = resident_pages();
  const std::int64_t kept = mla::trim();
  EXPECT(kept > 1 << 20, "%lld bytes were kept", static_cast<long long>(kept));
  const long gone = (before - resident_pages()) * sysconf(_SC_PAGESIZE);
  EXPECT(gone > kept / 2, "%ld of %lld bytes went", gone, static_cast<long long>(kept));
  CHECK(mla::trim() == 0);
  // While another thread runs.
  std::atomic<bool> is_over{false};
  std::thread trimmer([&] {
    while (!is_over) mla::trim();
  });
  int good = 0;
  for (int round = 0; round < 5; ++round) {
    step.run_prepared(backend);
    good += step.out.bytes() == expected.out.bytes();
  }
  is_over = true;
  trimmer.join();
  CHECK(good == 5);
}

void log_callback() {
  mla_log_callback set = nullptr, drop = [](void*, std::int32_t, const char*) {};
  void* context = &set;
  mla::check(mla_get_log_callback(&set, &context));
  CHECK(set == nullptr && context == nullptr);
  mla::check(mla_set_log_callback(drop, &context));
  mla::check(mla_get_log_callback(&set, nullptr));
  mla::check(mla_get_log_callback(&set, &context));
  CHECK(set == drop && context == &context);
  CHECK(mla_get_log_callback(nullptr, &context) == MLA_ERROR_INVALID_ARGUMENT);
  auto step = test::Attention::new_tokens({}, MLA_DTYPE_FLOAT32, {8}, 2);
  mla::backend backend("CPU", step.model.config());
  step.run(backend);
  mla::check(mla_set_log_callback(nullptr, nullptr));
  mla::check(mla_get_log_callback(&set, &context));
  CHECK(set == nullptr && context == nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  return test::run(argc, argv,
                   {{"host versions", versions},
                    {"host cpu info", cpu},
                    {"host last error is the latest failure's", last_error_is_of_the_latest_failure},
                    {"host last error is the thread's", last_error_is_of_the_thread},
                    {"host number of threads", number_of_threads},
                    {"host pinned calling thread", pinned_caller},
                    {"host fork", in_a_forked_child},
                    {"host threads on one object", threads_on_one_object},
                    {"host threads come and go", threads_come_and_go},
                    {"host trimming", trimming},
                    {"host log callback", log_callback}});
}
