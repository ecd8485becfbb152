// A line for each test: ok, or not ok and the first that was wrong.
#pragma once

#include <cstdio>
#include <exception>
#include <string>
#include <utility>

class Report {
 public:
  explicit Report(std::string name) : name(std::move(name)) {}
  Report(const Report&) = delete;
  Report& operator=(const Report&) = delete;

  ~Report() {
    if (std::uncaught_exceptions() > 0)
      std::printf("not ok %s: the machine refuses it\n", name.c_str());
    else if (wrong.empty())
      std::printf("ok %s%s\n", name.c_str(), worst_text().c_str());
    else
      std::printf("not ok %s: %s\n", name.c_str(), wrong.c_str());
    std::fflush(stdout);
  }

  void expect(bool is_right, const std::string& what) {
    if (is_right || !wrong.empty()) return;
    wrong = what;
    failed = true;
  }

  /// NaN is too much, too.
  void expect_at_most(double value, double bound, const std::string& what) {
    if (value / bound > worst) worst = value / bound;
    expect(value <= bound, what + ": " + std::to_string(value) + " of " + std::to_string(bound));
  }

  /// A program's tests, and its status. A launch that the machine refuses ends them.
  template <class Tests>
  static int run(Tests tests) {
    try {
      tests();
    } catch (const std::exception& error) {
      std::printf("not ok %s\n", error.what());
      return 1;
    }
    return failed ? 1 : 0;
  }

 private:
  std::string name, wrong;
  double worst = 0;
  static inline bool failed = false;

  std::string worst_text() const {
    char text[40] = "";
    if (worst > 0) std::snprintf(text, sizeof text, ", at %.2f of the bound", worst);
    return text;
  }
};
