// Numbers in a launch's parameters, to memory: those and no more.
#include <vector>

#include "problem.hpp"
#include "report.hpp"

int main() {
  return Report::run([] {
    Report report("mla_upload");
    for (const int count : {0, 1, 127, 128, 129, 500, +MLA_CUDA_UPLOAD_NUMBERS}) {
      mla_cuda_upload a = {};
      static_assert(sizeof a <= 4096, "what a launch has for parameters");
      std::vector<int> to(MLA_CUDA_UPLOAD_NUMBERS + 2, -1), expected = to;
      a.to = to.data() + 1, a.count = count;
      for (int i = 0; i < MLA_CUDA_UPLOAD_NUMBERS; ++i) a.numbers[i] = 7 * i + 3;
      for (int i = 0; i < count; ++i) expected[static_cast<std::size_t>(i) + 1] = 7 * i + 3;
      launch("mla_upload", 1, 1, MLA_CUDA_UPLOAD_THREADS, 0, &a, sizeof a, 1, 0);
      report.expect(to == expected, std::to_string(count) + " numbers");
    }
  });
}
