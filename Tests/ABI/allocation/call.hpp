// Calls of the ABI whose allocations are to fail.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "../support.hpp"

namespace allocation {

/// Memory that a call writes: 0xFF before it, and still so if it fails.
struct Output {
  void* data;
  std::size_t bytes;
  /// A handle differs from one call to the next.
  bool is_handle;
};

/// One call of the ABI, whose arguments live as long as it does.
struct Call {
  std::string name;
  std::function<mla_status()> call;
  std::vector<Output> outputs;
  /// Before each call.
  std::function<void()> before = [] {};
  /// Takes back what a call that succeeded has done.
  std::function<void()> undo = [] {};
  /// What must hold after a call, whatever it came to.
  std::function<bool(mla_status)> holds = [](mla_status) { return true; };
  mla_status status = MLA_OK;

  void poison() const {
    for (const Output& output : outputs) std::memset(output.data, 0xFF, output.bytes);
    before();
  }

  std::vector<std::uint8_t> written() const {
    std::vector<std::uint8_t> all;
    for (const Output& output : outputs) {
      const auto* bytes = static_cast<const std::uint8_t*>(output.data);
      if (!output.is_handle) all.insert(all.end(), bytes, bytes + output.bytes);
    }
    return all;
  }

  /// Whether one of its handles is such.
  template <class Is>
  bool hands_out(Is is) const {
    return std::any_of(outputs.begin(), outputs.end(), [&](const Output& output) {
      return output.is_handle && is(*static_cast<void* const*>(output.data));
    });
  }

  bool is_untouched() const {
    return std::all_of(outputs.begin(), outputs.end(), [](const Output& output) {
      const auto* bytes = static_cast<const std::uint8_t*>(output.data);
      return std::all_of(bytes, bytes + output.bytes,
                         [](std::uint8_t byte) { return byte == 0xFF; });
    });
  }
};

template <class T>
Output value_of(T& value) {
  return {&value, sizeof(value), false};
}
template <class T>
Output handle_of(T*& handle) {
  return {&handle, sizeof(handle), true};
}
/// All of a struct but the size that its caller sets.
template <class Struct>
Output fields_of(Struct& filled) {
  return {reinterpret_cast<char*>(&filled) + sizeof(filled.struct_size),
          sizeof(filled) - sizeof(filled.struct_size), false};
}
inline Output elements_of(test::Array& array) {
  return {array.view().data, array.bytes().size(), false};
}

/// Arguments of calls, kept until the program ends, and handles in them reachable.
template <class T, class... Arguments>
T& kept(Arguments&&... arguments) {
  static auto& all = *new std::vector<std::unique_ptr<T>>;
  all.push_back(std::make_unique<T>(std::forward<Arguments>(arguments)...));
  return *all.back();
}

/// Registrations whose backend hands its runs to FLASH_ATTN's own implementation.
struct Delegate {
  Delegate();

  mla_backend_vtable table;
  mla_backend_registration registration;
  int contexts_destroyed = 0, created = 0, destroyed = 0;
};

std::vector<Call> host_calls();
std::vector<Call> registry_calls();
std::vector<Call> selector_calls();
std::vector<Call> context_plan_calls();
/// With a Delegate behind CUSTOM.
std::vector<Call> backend_calls();
std::vector<Call> layer_calls();
std::vector<Call> attention_calls();
std::vector<Call> index_calls();
/// Plans that calls have left to the next ones are memory that goes with the rest.
void plans_are_trimmed();
/// What is as long as the batch has none of what the library has in store.
void arrays_are_refused();
std::vector<Call> large_batch_calls();

}  // namespace allocation
