// SPDX-License-Identifier: Apache-2.0
#include "first_use.hpp"

#include <fcntl.h>
#include <sys/resource.h>

#include "../failing_allocations.hpp"
#include "child.hpp"

namespace allocation {
namespace {

/// The calls that a process may begin with, one after the other; how many succeeded.
int use_first(test::Attention& tokens, const mla_selector_config& wanted) {
  const mla_backend_config config = tokens.model.config();
  mla_cpu_info info = MLA_CPU_INFO_INIT;
  mla_prefill_metadata metadata = MLA_PREFILL_METADATA_INIT;
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  mla_backend_list* list = nullptr;
  mla_backend* backend = nullptr;
  const char* name = nullptr;
  metadata.num_requests = static_cast<std::int32_t>(tokens.q_loc.size() - 1);
  metadata.query_start_loc = tokens.q_loc.data();
  args.q = &tokens.q.view();
  args.k = &tokens.k.view();
  args.v = &tokens.v.view();
  args.out = &tokens.out.view();
  args.lse = &tokens.lse.view();
  int succeeded = 0;
  const auto note = [&](mla_status status) {
    EXPECT(status == MLA_OK || status == MLA_ERROR_OUT_OF_MEMORY, "%s: %s",
           mla_status_name(status), mla_last_error_message());
    succeeded += status == MLA_OK;
    return status == MLA_OK;
  };
  note(mla_get_cpu_info(&info));
  note(mla_set_num_threads(4));
  note(mla_select_backend(&wanted, &name));
  note(mla_backend_list_create(&wanted, &list));
  mla_backend_list_destroy(list);
  if (note(mla_backend_create("FLASHINFER", &config, &backend)) &&
      note(mla_prepare_metadata(backend, &metadata))) {
    note(mla_run_prefill_new_tokens(backend, &args));
  }
  mla_backend_destroy(backend);
  return succeeded;
}

/// Lets the process have `room` bytes more than it has, or all again. Takes no memory.
void limit_address_space(rlim_t room) {
  char text[64] = {};
  const int statm = open("/proc/self/statm", O_RDONLY);
  CHECK(read(statm, text, sizeof(text) - 1) > 0 && close(statm) == 0);
  const long pages = std::atol(text);
  rlimit limit{};
  CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
  limit.rlim_cur = room == RLIM_INFINITY ? limit.rlim_max : static_cast<rlim_t>(pages) * 4096 + room;
  CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/// All that malloc() still has, until the process ends.
void take_what_is_left() {
  for (std::size_t bytes = 1 << 16; bytes >= 16; bytes /= 2) {
    while (void* volatile taken = std::malloc(bytes)) static_cast<void>(taken);
  }
}

}  // namespace

void first_use() {
  const test::Model model{3, 64, 32, 64, 64};
  auto tokens = test::Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {90, 1, 60}, 1);
  const mla_selector_config wanted = model.selector();
  int in_pipe[2];
  CHECK(pipe(in_pipe) == 0);
  in_child([&] {
    failing::start(0, false);
    use_first(tokens, wanted);
    const long allocations = failing::stop();
    CHECK(write(in_pipe[1], &allocations, sizeof(allocations)) == sizeof(allocations));
  });
  long allocations = 0;
  CHECK(read(in_pipe[0], &allocations, sizeof(allocations)) == sizeof(allocations));
  CHECK(allocations > 100);
  const long step = failing::under_address_sanitizer ? 7 : 1;
  for (const bool onwards : {false, true}) {
    for (long nth = 1; nth <= allocations; nth += step) {
      in_child([&] {
        failing::start(nth, onwards);
        use_first(tokens, wanted);
        failing::stop();
        CHECK(use_first(tokens, wanted) == 7);
        test::expect_close(tokens, test::reference_of(tokens), "after the failure");
      });
    }
  }
}

void address_space() {
  // Which takes more than can be spoken of in limits.
  if (failing::under_address_sanitizer) return;
  const test::Model model{3, 64, 32, 64, 64};
  auto tokens = test::Attention::new_tokens(model, MLA_DTYPE_BFLOAT16, {90, 1, 60}, 1);
  const mla_selector_config wanted = model.selector();
  for (rlim_t room = 0; room <= 32 << 20; room += room < 1 << 20 ? 1 << 16 : 1 << 19) {
    in_child([&] {
      limit_address_space(0);
      take_what_is_left();
      limit_address_space(room);
      use_first(tokens, wanted);
      limit_address_space(RLIM_INFINITY);
      CHECK(use_first(tokens, wanted) == 7);
      test::expect_close(tokens, test::reference_of(tokens), "with address space again");
    });
  }
}

}  // namespace allocation
