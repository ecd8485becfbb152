// Every rule of this header broken on its own: the right status, a message with
// the field and the rule, outputs untouched.
//
// SPDX-License-Identifier: Apache-2.0
#include "malformed/rules.hpp"

namespace {

/// Draws of the values a rule chooses from.
constexpr int draws = 25;

void well_formed(const malformed::Function& function, malformed::Random& random) {
  const malformed::Outcome outcome = function.call({}, random);
  EXPECT(outcome.status == MLA_OK, "%s: the well-formed call gives %s: %s", function.name.c_str(),
         mla_status_name(outcome.status), outcome.message.c_str());
}

void broken(const malformed::Function& function, std::size_t rule, malformed::Random& random) {
  const malformed::Function::RuleInfo& info = function.rules[rule];
  const malformed::Outcome outcome = function.call({rule}, random);
  const char* field = info.field.c_str();
  EXPECT(outcome.status != MLA_OK, "rule %zu (%s) was accepted", rule, field);
  EXPECT(info.status == malformed::any_failure || outcome.status == info.status,
         "rule %zu (%s) gives %s, not %s: %s", rule, field, mla_status_name(outcome.status),
         mla_status_name(info.status), outcome.message.c_str());
  EXPECT(outcome.message.find(info.field) != std::string::npos, "rule %zu: no %s in \"%s\"", rule,
         field, outcome.message.c_str());
  EXPECT(outcome.outputs_untouched, "rule %zu (%s) wrote to an output", rule, field);
}

void function_case(const malformed::Function& function) {
  malformed::Random random(1);
  std::string failures;
  well_formed(function, random);
  for (std::size_t rule = 0; rule < function.rules.size(); ++rule) {
    try {
      for (int draw = 0; draw < draws; ++draw) broken(function, rule, random);
    } catch (const std::runtime_error& failure) {
      failures += std::string("\n   ") + failure.what();
    }
  }
  well_formed(function, random);
  EXPECT(failures.empty(), "%s", failures.c_str());
}

/// NULL is a value here, not an error.
void null_handles() {
  mla_backend_destroy(nullptr);
  mla_backend_list_destroy(nullptr);
  mla_context_plan_destroy(nullptr);
  CHECK(std::strcmp(mla_backend_name(nullptr), "") == 0);
  CHECK(mla_backend_list_size(nullptr) == 0);
  CHECK(mla_context_plan_num_chunks(nullptr) == 0);
}

void all_tensors_on_a_gpu() {
  auto step = test::Attention::new_tokens({}, MLA_DTYPE_BFLOAT16, {4}, 1);
  mla::backend backend("FLASH_ATTN", step.model.config());
  backend.prepare_metadata(step.q_loc);
  for (test::Array* array : {&step.q, &step.k, &step.v, &step.out, &step.lse}) {
    array->view().device_type = MLA_DEVICE_CUDA;
  }
  try {
    step.run_prepared(backend);
  } catch (const mla::error& failure) {
    CHECK(failure.status() == MLA_ERROR_UNSUPPORTED_HARDWARE);
    CHECK(std::strstr(failure.what(), "q.device_type = 2: this call runs on") != nullptr);
    return;
  }
  test::fail("CUDA tensors were accepted");
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<test::Case> cases{{"bad input: NULL handles", null_handles},
                                {"bad input: tensors on a GPU", all_tensors_on_a_gpu}};
  for (const malformed::Function& function : malformed::all_functions()) {
    cases.push_back({"bad input: " + function.name, [=] { function_case(function); }});
  }
  return test::run(argc, argv, cases);
}
