// The attention kernels for any GPU.
#include <cstdlib>

#include "batches.hpp"
#include "report.hpp"

int main(int count, char** arguments) {
  const int seeds = count > 1 ? std::atoi(arguments[1]) : 20;
  return Report::run([&] {
    random_batches(false, seeds);
  });
}
