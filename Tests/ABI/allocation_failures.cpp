// Memory that cannot be had: each allocation of each call fails in turn, alone and with
// all after it. No call ends the process; one that fails has written nothing and kept
// nothing, and the next is served.
//
//   allocation_failures [NAME]
//
// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include <atomic>
#include <thread>

#include "allocation/call.hpp"
#include "allocation/child.hpp"
#include "allocation/first_use.hpp"
#include "failing_allocations.hpp"

namespace {

using allocation::Call;

/// Calls with all the memory that there is; what it wrote.
std::vector<std::uint8_t> succeed(const Call& call) {
  call.poison();
  const mla_status status = call.call();
  EXPECT(status == call.status, "with memory: %s, %s", mla_status_name(status),
         mla_last_error_message());
  CHECK(call.holds(status));
  std::vector<std::uint8_t> written = call.written();
  if (status == MLA_OK) call.undo();
  return written;
}

void fail_one(const Call& call, long nth, bool onwards, const std::vector<std::uint8_t>& expected) {
  call.poison();
  failing::start(nth, onwards);
  const mla_status status = call.call();
  failing::stop();
  const bool is_short = status == MLA_ERROR_OUT_OF_MEMORY;
  EXPECT(is_short || status == call.status, "allocation %ld: %s, %s", nth,
         mla_status_name(status), mla_last_error_message());
  EXPECT(status == MLA_OK ? call.written() == expected : call.is_untouched(),
         "allocation %ld: %s, outputs are wrong", nth, mla_status_name(status));
  EXPECT(call.holds(status), "allocation %ld: %s, not as it was", nth, mla_status_name(status));
  EXPECT(!is_short || mla_last_error_message()[0] != 0, "allocation %ld: no message", nth);
  // The library's own memory is there for as long as a call takes.
  Dl_info owner;
  EXPECT(status != MLA_OK || !call.hands_out([&](void* object) { return dladdr(object, &owner) != 0; }),
         "allocation %ld: an object in what the library has in store", nth);
  if (status == MLA_OK) call.undo();
}

/// Fails each allocation of a call in turn.
void fail_each(const Call& call) {
  const std::vector<std::uint8_t> expected = succeed(call);
  fail_one(call, 1, true, expected);
  CHECK(succeed(call) == expected);
  const long blocks = failing::live_blocks();
  call.poison();
  failing::start(0, false);
  const mla_status status = call.call();
  const long allocations = failing::stop();
  if (status == MLA_OK) call.undo();
  for (long nth = 1; nth <= allocations; ++nth) {
    for (const bool onwards : {false, true}) {
      fail_one(call, nth, onwards, expected);
      CHECK(succeed(call) == expected);
    }
  }
  EXPECT(failing::live_blocks() <= blocks, "%ld blocks are left", failing::live_blocks() - blocks);
}

/// Were a piece of what the library has in store for such calls lost in each, there
/// would soon be nothing left.
void fail_for_long(const Call& call, int rounds) {
  const std::vector<std::uint8_t> expected = succeed(call);
  for (int i = 0; i < rounds; ++i) fail_one(call, 1 + i % 3, true, expected);
  CHECK(succeed(call) == expected);
}

/// A forked child makes threads of its own.
void threads_that_are_made(const Call& run) {
  const std::vector<std::uint8_t> expected = succeed(run);
  for (long nth = 1; nth <= 40; ++nth) {
    for (const bool onwards : {false, true}) {
      allocation::in_child([&] {
        fail_one(run, nth, onwards, expected);
        CHECK(succeed(run) == expected);
      });
    }
  }
}

/// What the Swift runtime takes ends the process where nobody has it: it takes little.
/// What grows with the batch is asked for by alignment.
void take_little(const Call& call) {
  failing::start(0, false);
  const mla_status status = call.call();
  failing::stop();
  EXPECT(status == MLA_OK, "%s", mla_last_error_message());
  EXPECT(failing::largest() <= 1 << 16, "a piece of %zu bytes", failing::largest());
}

/// As many and as long reasons as a validate may have.
struct Talkative {
  explicit Talkative(const mla_backend_config&) {}
  static void validate(const mla_selector_config&, mla::reasons& reasons) {
    static const std::string text(4096, '\xff');
    for (int i = 0; i < 1000; ++i) reasons.add(text);
  }
  void run_prefill_new_tokens(const mla_new_tokens_args&) const {}
  void run_prefill_context_chunk(const mla_context_chunk_args&) const {}
};

void long_reasons() {
  mla::override_backend<Talkative>("CPU");
  mla_selector_config config = test::Model{}.selector(MLA_DTYPE_BFLOAT16);
  config.backend = "CPU";
  const char* name = nullptr;
  for (const long nth : {1, 2, 5, 50, 500}) {
    mla_backend_list* list = nullptr;
    failing::start(nth, true);
    const mla_status chosen = mla_select_backend(&config, &name);
    const mla_status listed = mla_backend_list_create(&config, &list);
    failing::stop();
    mla_backend_list_destroy(list);
    CHECK(chosen == MLA_ERROR_UNSUPPORTED_CONFIGURATION || chosen == MLA_ERROR_OUT_OF_MEMORY);
    CHECK(listed == MLA_OK || listed == MLA_ERROR_OUT_OF_MEMORY);
  }
  mla::check(mla_clear_override("CPU"));
}

/// What a call within another lacks is no matter of the other's.
struct Needy {
  explicit Needy(const mla_backend_config&) {
    mla_selector_config config = test::Model{}.selector(MLA_DTYPE_BFLOAT16);
    mla_backend_list* list = nullptr;
    failing::start(1, true);
    const mla_status status = mla_backend_list_create(&config, &list);
    failing::stop();
    CHECK(status == MLA_ERROR_OUT_OF_MEMORY);
  }
  void run_prefill_new_tokens(const mla_new_tokens_args&) const {}
  void run_prefill_context_chunk(const mla_context_chunk_args&) const {}
};

void calls_within_calls() {
  mla::override_backend<Needy>("CPU");
  const mla::backend outer("CPU", test::Model{}.config());
  mla::check(mla_clear_override("CPU"));
}

/// What threads say while memory is short, and keep, takes nothing from others' calls.
void long_messages() {
  const std::string message(1 << 20, 'x');
  const mla_selector_config config = test::Model{}.selector(MLA_DTYPE_BFLOAT16);
  const char* name = nullptr;
  std::atomic<int> waiting{0};
  std::atomic<bool> is_short{false}, is_over{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&] {
      ++waiting;
      while (!is_short) std::this_thread::yield();
      mla_set_last_error_message(message.c_str());
      --waiting;
      while (!is_over) std::this_thread::yield();
    });
  }
  while (waiting < 32) std::this_thread::yield();
  failing::start(1, true);
  is_short = true;
  while (waiting > 0) std::this_thread::yield();
  failing::stop();
  const mla_status status = mla_select_backend(&config, &name);
  is_over = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT(status == MLA_OK, "with memory again: %s", mla_status_name(status));
}

const Call& find(const std::vector<Call>& calls, const std::string& name) {
  for (const Call& call : calls) {
    if (call.name == name) return call;
  }
  test::fail("no call %s", name.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  // Before the library is used here.
  int failures = test::run(argc, argv,
                           {{"allocation failures: first use", allocation::first_use},
                            {"allocation failures: address space", allocation::address_space}});
  std::vector<test::Case> cases;
  const auto add = [&](const std::vector<Call>& calls, int rounds) {
    for (const Call& call : calls) {
      const std::string name = "allocation failures: " + call.name;
      cases.push_back({name, [call] { fail_each(call); }});
      cases.push_back({name + ", for long", [call, rounds] { fail_for_long(call, rounds); }});
    }
  };
  cases.push_back({"allocation failures: long reasons", long_reasons});
  cases.push_back({"allocation failures: long messages", long_messages});
  cases.push_back({"allocation failures: calls within calls", calls_within_calls});
  cases.push_back({"allocation failures: plans are trimmed", allocation::plans_are_trimmed});
  cases.push_back({"allocation failures: arrays are refused", allocation::arrays_are_refused});
  add(allocation::host_calls(), 3000);
  add(allocation::registry_calls(), 3000);
  add(allocation::selector_calls(), 3000);
  add(allocation::context_plan_calls(), 3000);
  failures += test::run(argc, argv, cases);
  static allocation::Delegate delegate;
  mla::check(mla_override_backend("CUSTOM", &delegate.registration));
  for (const std::int32_t threads : {1, 4}) {
    mla::check(mla_set_num_threads(threads));
    cases.clear();
    const std::vector<Call> backends = allocation::backend_calls();
    add(backends, 300);
    add(allocation::layer_calls(), 300);
    add(allocation::attention_calls(), 300);
    add(allocation::index_calls(), 300);
    const Call& run = find(backends, "CPU mla_run_prefill_new_tokens");
    cases.push_back({"allocation failures: threads that are made", [&] { threads_that_are_made(run); }});
    failures += test::run(argc, argv, cases);
  }
  cases.clear();
  for (const Call& call : allocation::large_batch_calls()) {
    cases.push_back({"allocation failures: " + call.name, [call] { take_little(call); }});
  }
  failures += test::run(argc, argv, cases);
  return failures == 0 ? 0 : 1;
}
