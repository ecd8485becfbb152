// Work that is written down instead of done, to be done as often as it is asked for.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <thread>
#include <vector>

#include "context.hpp"

namespace gpu {

/// Pieces of work that are never done themselves.
struct Graph {
  std::vector<WorkPointer> nodes;
};

struct Capture {
  int mode;
  std::thread::id thread;
  Stream* origin;
  /// That take part, the origin too.
  std::vector<Stream*> streams;
  Graph graph;
  bool is_invalid = false;

  WorkPointer add(Stream& stream, std::function<void()> action);
  /// The stream's next work comes after these as well; it takes part from here on.
  void join(Stream& stream, const std::vector<WorkPointer>& after);
  /// Whether all that takes part comes before the origin's last work.
  bool is_joined() const;
};

/// The captures under way, and what they forbid to whom.
class Captures {
 public:
  void begin(Stream& stream, int mode);
  /// Throws what was wrong with it; it is over all the same.
  Graph end(Stream& stream);
  /// For calls that a capture under way may forbid, on this thread or on all.
  void require_none(int mode_of_thread);
  /// For what waits for work of a stream, or of a context, or looks at it.
  void require_not_capturing(Stream& stream);
  void require_not_capturing(const Context& context);
  /// For work on a context's legacy default stream, for which its blocking streams wait.
  void require_no_blocking_one(Context& context);
  /// Of a context that goes.
  void forget(const Context& context);

 private:
  std::vector<std::shared_ptr<Capture>> captures_;
};

}  // namespace gpu
