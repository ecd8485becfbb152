// Malformed calls: a well-formed call of each function, and rules each of which
// breaks it by itself, whatever other rules are applied as well.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../support.hpp"

namespace malformed {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }
  template <class T>
  T any_of(std::initializer_list<T> choices) {
    return choices.begin()[between(0, static_cast<std::int64_t>(choices.size()) - 1)];
  }
  std::int32_t negative() {
    return static_cast<std::int32_t>(any_of<std::int64_t>({-1, INT32_MIN, between(INT32_MIN, -1)}));
  }

 private:
  std::mt19937_64 engine_;
};

/// Where more than one status describes what is wrong.
constexpr mla_status any_failure = -1;

/// One way to break a call, the field that its message must name and the status
/// that it must give. Applied once at most; a call broken by any set of rules
/// stays broken.
template <class Call>
struct Rule {
  std::string field;
  mla_status status;
  std::function<void(Call&, Random&)> apply;
};

/// What a call came to.
struct Outcome {
  mla_status status;
  std::string message;
  bool outputs_untouched;
};

/// A function of the ABI with its rules, the type of its arguments erased.
struct Function {
  struct RuleInfo {
    std::string field;
    mla_status status;
  };

  std::string name;
  std::vector<RuleInfo> rules;
  /// Makes a well-formed call, applies the rules of these indices, calls.
  std::function<Outcome(const std::vector<std::size_t>&, Random&)> call;
};

/// What else happens while the library works on a call: allocations fail, say.
struct Surroundings {
  std::function<void()> begin = [] {}, end = [] {};
};
inline Surroundings surroundings;

template <class Call>
Function function(std::string name, std::vector<Rule<Call>> rules) {
  Function made;
  made.name = std::move(name);
  for (const Rule<Call>& rule : rules) made.rules.push_back({rule.field, rule.status});
  made.call = [rules](const std::vector<std::size_t>& broken, Random& random) {
    Call call;
    for (std::size_t i : broken) rules[i].apply(call, random);
    mla_set_last_error_message(nullptr);
    surroundings.begin();
    const mla_status status = call.invoke();
    surroundings.end();
    return Outcome{status, mla_last_error_message(), call.untouched()};
  };
  return made;
}

/// A caller's struct with room behind it for a tail that no library knows yet.
template <class Struct>
struct Padded {
  Struct value;
  std::uint8_t tail[64] = {};

  explicit Padded(const Struct& initial) : value(initial) {}

  void grow(Random& random) {
    const std::int64_t size = random.between(1, static_cast<std::int64_t>(sizeof(tail)));
    value.struct_size = static_cast<std::uint32_t>(sizeof(Struct) + static_cast<std::size_t>(size));
    tail[random.between(0, size - 1)] = static_cast<std::uint8_t>(random.between(1, 255));
  }
};

/// Sizes that a struct has in no version of the header: too small, absurd, or such that
/// they end inside a field.
template <class Struct>
std::uint32_t wrong_size(const Struct&, Random& random) {
  const auto size = static_cast<std::int64_t>(sizeof(Struct));
  const auto cut = static_cast<std::int64_t>(alignof(Struct)) - 1;
  return static_cast<std::uint32_t>(
      random.any_of<std::int64_t>({0, 1, 3, 7, 5000, 1 << 20, UINT32_MAX,
                                   size - random.between(1, cut), size + random.between(1, cut)}));
}

/// Names that no member has.
inline const char* unknown_name(Random& random) {
  return random.any_of({"NO_SUCH", "", "flash_attn", "CPU ", "Flash Attn", "0", "\xc3\xa9"});
}

/// A pointer to a struct that is not aligned for it.
template <class T>
const T* misaligned(const T* pointer) {
  return reinterpret_cast<const T*>(reinterpret_cast<std::uintptr_t>(pointer) + 1);
}

/// Rules of any struct the caller fills; `select` finds the Padded struct of a
/// call and `pointer` where the call keeps its address.
template <class Call, class Select, class Pointer>
void add_struct_rules(std::vector<Rule<Call>>& rules, const std::string& name, Select select,
                      Pointer pointer) {
  rules.push_back({name, MLA_ERROR_INVALID_ARGUMENT,
                   [=](Call& call, Random&) { pointer(call) = nullptr; }});
  rules.push_back({name, MLA_ERROR_INVALID_ARGUMENT, [=](Call& call, Random&) {
                     if (pointer(call) != nullptr) pointer(call) = misaligned(&select(call).value);
                   }});
  rules.push_back({"struct_size", MLA_ERROR_INVALID_ARGUMENT, [=](Call& call, Random& random) {
                     select(call).value.struct_size = wrong_size(select(call).value, random);
                   }});
  rules.push_back({"struct_size", MLA_ERROR_INVALID_ARGUMENT,
                   [=](Call& call, Random& random) { select(call).grow(random); }});
}

/// What an output pointer holds before a call that must not touch it.
template <class T>
T* canary() {
  return reinterpret_cast<T*>(std::uintptr_t{0x5A5A5A50});
}

std::vector<Function> run_functions();
std::vector<Function> merge_functions();
std::vector<Function> batch_functions();
std::vector<Function> registry_functions();
std::vector<Function> selector_functions();
std::vector<Function> host_functions();
std::vector<Function> layer_functions();
std::vector<Function> layer_format_functions();
std::vector<Function> layer_layout_functions();
std::vector<Function> layer_selected_functions();
std::vector<Function> gather_functions();
std::vector<Function> attention_functions();
std::vector<Function> index_functions();

inline std::vector<Function> all_functions() {
  std::vector<Function> all;
  for (auto part : {run_functions(), merge_functions(), batch_functions(), registry_functions(),
                    selector_functions(), host_functions(), layer_functions(),
                    layer_format_functions(), layer_layout_functions(), layer_selected_functions(),
                    gather_functions(), attention_functions(), index_functions()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace malformed
