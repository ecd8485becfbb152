// Those of sm_90a, by tensor maps.
#include <cstdlib>

#include "batches.hpp"
#include "report.hpp"

int main(int count, char** arguments) {
  const int seeds = count > 1 ? std::atoi(arguments[1]) : 20;
  return Report::run([&] {
    random_batches(true, seeds);
  });
}
