// Malformed calls of the selector, its lists and the host's settings.
//
// SPDX-License-Identifier: Apache-2.0
#include "rules.hpp"

namespace malformed {
namespace {

constexpr mla_status invalid = MLA_ERROR_INVALID_ARGUMENT;
constexpr mla_status not_registered = MLA_ERROR_NOT_REGISTERED;

struct Judging {
  Judging() : config(test::Model{}.selector()) {}

  Padded<mla_selector_config> config;
  const mla_selector_config* pointer = &config.value;
};

struct Select : Judging {
  mla_status invoke() { return mla_select_backend(pointer, place); }
  bool untouched() const { return name == canary<char>(); }

  const char* name = canary<char>();
  const char** place = &name;
};

struct List : Judging {
  mla_status invoke() {
    const mla_status status = mla_backend_list_create(pointer, place);
    if (status == MLA_OK) mla_backend_list_destroy(list);
    return status;
  }
  bool untouched() const { return list == canary<mla_backend_list>(); }

  mla_backend_list* list = canary<mla_backend_list>();
  mla_backend_list** place = &list;
};

struct Validate : Judging {
  mla_status invoke() { return mla_validate_configuration(name, pointer, place, &reasons); }
  bool untouched() const { return reasons == 0; }

  static void count(void* reasons, const char*) { ++*static_cast<int*>(reasons); }

  const char* name = "CPU";
  mla_reason_sink place = count;
  int reasons = 0;
};

template <class Call>
std::vector<Rule<Call>> judging_rules(const char* place) {
  std::vector<Rule<Call>> rules;
  add_struct_rules(rules, "config", [](Call& c) -> auto& { return c.config; },
                   [](Call& c) -> auto& { return c.pointer; });
  const auto add = [&](const char* field, auto apply) { rules.push_back({field, invalid, apply}); };
  add(place, [](Call& c, Random&) { c.place = nullptr; });
  add("dtype", [](Call& c, Random& random) {
    c.config.value.dtype = random.any_of<std::int32_t>({6, -1, INT32_MAX, random.negative()});
  });
  add("qk_nope_head_dim",
      [](Call& c, Random& random) { c.config.value.qk_nope_head_dim = random.negative(); });
  add("qk_rope_head_dim",
      [](Call& c, Random& random) { c.config.value.qk_rope_head_dim = random.negative(); });
  add("v_head_dim", [](Call& c, Random& random) {
    c.config.value.v_head_dim = random.any_of<std::int32_t>({INT32_MAX, random.negative()});
  });
  add("platform", [](Call& c, Random& random) {
    c.config.value.platform = random.any_of<std::int32_t>({4, -1, INT32_MAX, random.negative()});
  });
  add("capability_major", [](Call& c, Random& random) {
    c.config.value.capability_major = random.any_of<std::int32_t>({-2, INT32_MIN, INT32_MAX});
  });
  add("backend", [](Call& c, Random&) { c.config.value.backend = "\xf0\x28"; });
  return rules;
}

std::vector<Rule<Select>> select_rules() {
  std::vector<Rule<Select>> rules = judging_rules<Select>("name");
  rules.push_back({"Unknown MLA prefill backend", not_registered, [](Select& c, Random& random) {
                     // Names in another case are known here, as in vLLM.
                     c.config.value.backend = random.any_of({"NO_SUCH", "", "CPU ", "0"});
                   }});
  rules.push_back({"must be registered before use", not_registered,
                   [](Select& c, Random&) { c.config.value.backend = "CUSTOM"; }});
  return rules;
}

/// A list made once; one row of it, or one reason.
struct Row {
  Row() : info(MLA_BACKEND_INFO_INIT), before(info.value) {}

  static mla_backend_list* shared() {
    static mla::backend_list* const made = [] {
      mla_selector_config config = test::Model{}.selector();
      config.platform = MLA_PLATFORM_CUDA;
      config.capability_major = 8;
      config.capability_minor = 0;
      return new mla::backend_list(config);
    }();
    return made->get();
  }
  mla_status invoke() { return mla_backend_list_get(list, index, pointer); }
  bool untouched() const {
    mla_backend_info now = info.value;
    now.struct_size = before.struct_size;
    return std::memcmp(&now, &before, sizeof(now)) == 0;
  }

  mla_backend_list* list = shared();
  std::int32_t index = 1;
  Padded<mla_backend_info> info;
  mla_backend_info before;
  mla_backend_info* pointer = &info.value;
};

struct Reason {
  mla_status invoke() { return mla_backend_list_reason(list, index, reason, place); }
  bool untouched() const { return text == canary<char>(); }

  mla_backend_list* list = Row::shared();
  std::int32_t index = 1;  // FLASHINFER, which capability 8.0 does not have
  std::int32_t reason = 0;
  const char* text = canary<char>();
  const char** place = &text;
};

struct CpuInfo {
  CpuInfo() : info(MLA_CPU_INFO_INIT), before(info.value) {}

  mla_status invoke() { return mla_get_cpu_info(pointer); }
  bool untouched() const {
    mla_cpu_info now = info.value;
    now.struct_size = before.struct_size;
    return std::memcmp(&now, &before, sizeof(now)) == 0;
  }

  Padded<mla_cpu_info> info;
  mla_cpu_info before;
  mla_cpu_info* pointer = &info.value;
};

struct Stats {
  Stats() : stats(MLA_CALL_STATS_INIT), before(stats.value) {}

  mla_status invoke() { return mla_get_stats(index, pointer); }
  bool untouched() const {
    mla_call_stats now = stats.value;
    now.struct_size = before.struct_size;
    return std::memcmp(&now, &before, sizeof(now)) == 0;
  }

  std::int32_t index = 3;
  Padded<mla_call_stats> stats;
  mla_call_stats before;
  mla_call_stats* pointer = &stats.value;
};

struct Verbose {
  mla_status invoke() { return mla_set_verbose(level, nullptr, nullptr); }
  bool untouched() const { return true; }

  std::int32_t level = 0;
};

struct Threads {
  mla_status invoke() { return mla_set_num_threads(count); }
  bool untouched() const { return mla_get_num_threads() == before; }

  std::int32_t count = 0;
  std::int32_t before = mla_get_num_threads();
};

std::int32_t out_of_range(Random& random) {
  return random.any_of<std::int32_t>({-1, 1000, INT32_MAX, random.negative()});
}

}  // namespace

std::vector<Function> selector_functions() {
  // NULL is allowed here: it judges nothing.
  std::vector<Rule<List>> listing = judging_rules<List>("list");
  listing.erase(listing.begin());
  std::vector<Rule<Validate>> validating = judging_rules<Validate>("sink");
  validating.push_back({"name", invalid, [](Validate& c, Random&) { c.name = nullptr; }});
  validating.push_back({"", not_registered,
                        [](Validate& c, Random& random) { c.name = unknown_name(random); }});
  return {
      function<Select>("mla_select_backend", select_rules()),
      function<List>("mla_backend_list_create", listing),
      function<Validate>("mla_validate_configuration", validating),
      function<Row>(
          "mla_backend_list_get",
          {{"list", invalid, [](Row& c, Random&) { c.list = nullptr; }},
           {"index", invalid, [](Row& c, Random& random) { c.index = out_of_range(random); }},
           {"info", invalid, [](Row& c, Random&) { c.pointer = nullptr; }},
           {"struct_size", invalid,
            [](Row& c, Random& random) { c.info.value.struct_size = wrong_size(c.info.value, random); }}}),
      function<Reason>(
          "mla_backend_list_reason",
          {{"list", invalid, [](Reason& c, Random&) { c.list = nullptr; }},
           {"index", invalid, [](Reason& c, Random& random) { c.index = out_of_range(random); }},
           {"reason", invalid, [](Reason& c, Random& random) { c.reason = out_of_range(random); }},
           {"text", invalid, [](Reason& c, Random&) { c.place = nullptr; }}}),
  };
}

std::vector<Function> host_functions() {
  return {function<CpuInfo>(
              "mla_get_cpu_info",
              {{"info", invalid, [](CpuInfo& c, Random&) { c.pointer = nullptr; }},
               {"struct_size", invalid, [](CpuInfo& c, Random& random) {
                  c.info.value.struct_size = wrong_size(c.info.value, random);
                }}}),
          function<Stats>(
              "mla_get_stats",
              {{"index", invalid, [](Stats& c, Random& random) { c.index = out_of_range(random); }},
               {"stats", invalid, [](Stats& c, Random&) { c.pointer = nullptr; }},
               {"struct_size", invalid, [](Stats& c, Random& random) {
                  c.stats.value.struct_size = wrong_size(c.stats.value, random);
                }}}),
          function<Verbose>("mla_set_verbose",
                            {{"level", invalid, [](Verbose& c, Random& random) {
                                c.level = random.any_of<std::int32_t>({3, INT32_MAX, random.negative()});
                              }}}),
          function<Threads>("mla_set_num_threads",
                            {{"num_threads", invalid, [](Threads& c, Random& random) {
                                c.count = random.any_of<std::int32_t>(
                                    {1025, INT32_MAX, random.negative()});
                              }}})};
}

}  // namespace malformed
