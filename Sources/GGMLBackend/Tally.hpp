/* What becomes of the nodes that ggml asks about and hands over, for MLA_VERBOSE. */
#ifndef MLA_GGML_TALLY_HPP
#define MLA_GGML_TALLY_HPP

#include <cstdint>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

namespace mla_ggml {

/// Of a process. A reason is a literal. What there is no memory for goes untold.
class Tally {
 public:
  static Tally &shared();

  void served() noexcept { count("served", ""); }
  /// Computed by ggml's CPU backend on this one's behalf.
  void delegated(const char *reason) noexcept { count("left to ggml, ", reason); }
  /// Asked about and refused, once for each node of each graph that ggml plans.
  void declined(const char *reason) noexcept { count("declined, ", reason); }

  /// Logs and forgets them, where MLA_VERBOSE is set.
  void tell() noexcept;

 private:
  void count(const char *what, const char *reason) noexcept;

  std::mutex mutex_;
  std::map<std::pair<std::string_view, std::string_view>, int64_t> counts_;
};

}  // namespace mla_ggml

#endif
