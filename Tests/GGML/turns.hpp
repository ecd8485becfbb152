/* Two rates measured in turns, each turn in the other order: what else the machine does meets both. */
#ifndef MLA_TESTS_GGML_TURNS_HPP
#define MLA_TESTS_GGML_TURNS_HPP

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

inline double seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// How often `work` happens in a second of `clock` that does it `count` times.
template <typename Work>
double rate(double count, const Work &work, clockid_t clock = CLOCK_MONOTONIC) {
  const double start = seconds(clock);
  work();
  return count / (seconds(clock) - start);
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Prints medians of both rates and of the turns' ratios; measure(0) is ggml's own, measure(1) with the backend.
template <typename Measure>
void in_turns(const std::string &what, int turns, const Measure &measure) {
  std::vector<double> rates[2], ratios;
  for (int turn = 0; turn < turns; ++turn) {
    for (const int side : {turn % 2, 1 - turn % 2}) rates[side].push_back(measure(side));
    ratios.push_back(rates[1].back() / rates[0].back());
  }
  const auto ends = std::minmax_element(ratios.begin(), ratios.end());
  std::printf("%s: %.4g | %.4g, %.2f times (%.2f to %.2f in %d turns)\n", what.c_str(), median(rates[0]),
              median(rates[1]), median(ratios), *ends.first, *ends.second, turns);
  std::fflush(stdout);
}

#endif
