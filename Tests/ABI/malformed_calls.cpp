// Random malformed calls through the whole ABI: no abort, every one refused with
// a message, no output touched.
//
//   malformed_calls [COUNT [SEED [FAIL]]]
//
// With a FAIL that is not 0 every other call is well-formed, and allocations fail at
// random: a call may then be refused for lack of memory, too.
//
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "failing_allocations.hpp"
#include "malformed/rules.hpp"

namespace {

/// One to three rules of one function, each at most once.
std::vector<std::size_t> choose(const malformed::Function& function, malformed::Random& random) {
  std::vector<std::size_t> chosen;
  const auto last = static_cast<std::int64_t>(function.rules.size()) - 1;
  for (std::int64_t n = random.between(1, 3); n > 0; --n) {
    const auto rule = static_cast<std::size_t>(random.between(0, last));
    if (std::find(chosen.begin(), chosen.end(), rule) == chosen.end()) chosen.push_back(rule);
  }
  return chosen;
}

void expect_right(const malformed::Function& function, const std::vector<std::size_t>& chosen,
                  malformed::Random& random, long call) {
  const malformed::Outcome outcome = function.call(chosen, random);
  if (outcome.status == MLA_OK && chosen.empty()) return;
  const bool may_fail = !chosen.empty() || outcome.status == MLA_ERROR_OUT_OF_MEMORY;
  if (outcome.status != MLA_OK && may_fail && !outcome.message.empty() &&
      outcome.outputs_untouched) {
    return;
  }
  std::string fields;
  for (std::size_t rule : chosen) fields += " " + function.rules[rule].field;
  test::fail("call %ld: %s broken at%s: %s, message \"%s\"%s", call, function.name.c_str(),
             fields.c_str(), mla_status_name(outcome.status), outcome.message.c_str(),
             outcome.outputs_untouched ? "" : ", an output was touched");
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 1 ? std::atol(argv[1]) : 100000;
  const unsigned long seed = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1;
  const std::vector<malformed::Function> functions = malformed::all_functions();
  malformed::Random random(seed);
  const bool fails = argc > 3 && std::atoi(argv[3]) != 0;
  if (fails) {
    malformed::surroundings.begin = [&random] {
      const std::int64_t one_in = random.any_of<std::int64_t>({1, 2, 5, 20});
      failing::start_at_random(static_cast<std::uint64_t>(random.between(0, INT64_MAX)),
                               static_cast<unsigned>(one_in));
    };
    malformed::surroundings.end = [] { failing::stop(); };
  }
  try {
    for (long call = 0; call < count; ++call) {
      const auto which = static_cast<std::size_t>(
          random.between(0, static_cast<std::int64_t>(functions.size()) - 1));
      const bool is_well_formed = fails && call % 2 == 0;
      expect_right(functions[which],
                   is_well_formed ? std::vector<std::size_t>{} : choose(functions[which], random),
                   random, call);
    }
  } catch (const std::exception& failure) {
    std::printf("not ok malformed calls, seed %lu: %s\n", seed, failure.what());
    return 1;
  }
  std::printf("ok malformed calls: %ld, seed %lu\n", count, seed);
  return 0;
}
