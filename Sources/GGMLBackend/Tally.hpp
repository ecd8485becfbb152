/* What becomes of the nodes that ggml asks about and hands over, for MLA_VERBOSE. */
#ifndef MLA_GGML_TALLY_HPP
#define MLA_GGML_TALLY_HPP

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace mla_ggml {

/// Of a process. A reason is a literal.
class Tally {
 public:
  static Tally &shared();

  void served() { count("served"); }
  /// Computed by ggml's CPU backend on this one's behalf.
  void delegated(const char *reason) { count(std::string("left to ggml, ") + reason); }
  /// Asked about and refused, once for each node of each graph that ggml plans.
  void declined(const char *reason) { count(std::string("declined, ") + reason); }

  /// Logs and forgets them, where MLA_VERBOSE is set.
  void tell();

 private:
  void count(const std::string &what);

  std::mutex mutex_;
  std::map<std::string, int64_t> counts_;
};

}  // namespace mla_ggml

#endif
