#include "log.h"

#include <mla_prefill.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"

namespace mla_python {

namespace {

/// A message that waits. No lock and no memory is taken for one: neither a forked child
/// nor a process without memory stops here.
struct Message {
  enum : int { free, written, ready };

  std::atomic<int> state{free};
  std::uint64_t number = 0;
  std::int32_t level = 0;
  char text[500] = {};
};

Message messages[32];
std::atomic<std::uint64_t> next_number{0};
std::atomic<bool> has_messages{false};

/// The library's callback. What finds no place is lost.
void keep(void *, std::int32_t level, const char *text) {
  for (Message &message : messages) {
    int expected = Message::free;
    if (!message.state.compare_exchange_strong(expected, Message::written)) continue;
    message.number = next_number.fetch_add(1);
    message.level = level;
    std::strncpy(message.text, text, sizeof message.text - 1);
    message.state = Message::ready;
    has_messages = true;
    return;
  }
}

struct Kept {
  std::uint64_t number;
  std::int32_t level;
  std::string text;
};

std::vector<Kept> take_all() {
  std::vector<Kept> taken;
  has_messages = false;
  for (Message &message : messages) {
    if (message.state != Message::ready) continue;
    taken.push_back({message.number, message.level, message.text});
    message.state = Message::free;
  }
  std::sort(taken.begin(), taken.end(),
            [](const Kept &a, const Kept &b) { return a.number < b.number; });
  return taken;
}

/// What has the messages instead of `logging`; a reference, under the GIL. It is not given up
/// when the process ends.
PyObject *receiver = nullptr;

/// As `logging` counts them.
int python_level(std::int32_t level) { return 10 * (level - MLA_LOG_DEBUG + 1); }

void hand_on(const Kept &kept, nb::handle logger) {
  const nb::object function = nb::borrow(receiver);
  try {
    if (function.is_valid()) {
      called(function, nb::make_tuple(python_level(kept.level), text_of(kept.text)));
    } else {
      call_method(logger, "log", python_level(kept.level), "%s", text_of(kept.text));
    }
  } catch (nb::python_error &error) {
    if (is_interruption(error.value())) throw;
    // A receiver's own: the call that ends here has succeeded or failed by itself.
    error.discard_as_unraisable("the log of mla_prefill");
  }
}

}  // namespace

void keep_log() {
  mla_log_callback callback = nullptr;
  call_library([&] { return mla_get_log_callback(&callback, nullptr); });
  if (callback) return;
  call_library([] { return mla_set_log_callback(&keep, nullptr); });
}

mla_log_callback log_callback() { return &keep; }

void deliver_log() {
  if (!has_messages.load(std::memory_order_relaxed) || interpreter_has_ended()) return;
  try {
    const nb::object logger =
        call_method(nb::module_::import_("logging"), "getLogger", "mla_prefill");
    for (const Kept &kept : take_all()) hand_on(kept, logger);
  } catch (nb::python_error &error) {
    if (is_interruption(error.value())) throw;
    error.discard_as_unraisable("the log of mla_prefill");
  } catch (const std::bad_alloc &) {
    // No memory for the texts.
  }
}

void set_log_callback(nb::handle callback) {
  if (!callback.is_none() && !PyCallable_Check(callback.ptr())) {
    raise(PyExc_TypeError, "callback: must be callable or None, not " + kind_of(callback));
  }
  // What was said before is not for the new one.
  deliver_log();
  PyObject *before = std::exchange(receiver, nullptr);
  if (!callback.is_none()) receiver = nb::borrow(callback).release().ptr();
  if (before) drop(before);
  if (callback.is_none()) {
    keep_log();
  } else {
    call_library([] { return mla_set_log_callback(&keep, nullptr); });
  }
}

}  // namespace mla_python
