// The recorded engine steps of Tests/Data, and what must come of them.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../../examples/c/safetensors.h"
#include "attention.hpp"

namespace test {

constexpr double max_recorded_out_error = 4e-3, max_recorded_lse_error = 1e-3;

/// A recorded tensor in the dtype asked for.
inline Array recorded(const st_file& file, const char* name, std::int32_t dtype) {
  mla_tensor view;
  EXPECT(st_tensor(&file, name, &view) == 0, "the recording lacks %s", name);
  std::vector<std::int64_t> shape(view.shape, view.shape + view.ndim);
  Array made(view.dtype == MLA_DTYPE_FLOAT32 ? MLA_DTYPE_FLOAT32 : dtype, shape);
  made.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    const std::int64_t last = view.ndim == 3 ? k : 0;
    const auto offset = static_cast<std::size_t>(i * view.strides[0] + j * view.strides[1] + last);
    const auto* bytes = static_cast<const std::uint8_t*>(view.data);
    made.set(i, j, k, load(bytes + offset * element_size(view.dtype), view.dtype));
  });
  return made;
}

inline Offsets offsets(const st_file& file, const char* name) {
  std::int32_t count = 0;
  const std::int32_t* values = st_int32(&file, name, &count);
  EXPECT(values != nullptr, "the recording lacks %s", name);
  return {values, values + count};
}

/// A file of Tests/Data, by its name.
struct Recording {
  explicit Recording(const char* name) : path(std::string("Tests/Data/") + name) {
    EXPECT(st_open(&file, path.c_str()) == 0, "%s cannot be read", path.c_str());
  }
  ~Recording() { st_close(&file); }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  std::string path;
  st_file file;
};

/// Compares the first rows of a recorded result with what came out.
inline void expect_recorded(const st_file& file, const char* out_name, const char* lse_name,
                            const Array& out, const Array& lse, const std::string& what) {
  const Array expected = recorded(file, out_name, MLA_DTYPE_FLOAT32);
  const Array expected_lse = recorded(file, lse_name, MLA_DTYPE_FLOAT32);
  RelativeError error;
  out.each([&](std::int64_t i, std::int64_t j, std::int64_t k) {
    error.add(out.at(i, j, k), expected.at(i, j, k));
  });
  EXPECT(error.value() <= max_recorded_out_error, "%s: %s is off by %.2e", what.c_str(), out_name,
         error.value());
  lse.each([&](std::int64_t i, std::int64_t j, std::int64_t) {
    const double difference = std::fabs(lse.at(i, j) - expected_lse.at(i, j));
    EXPECT(difference <= max_recorded_lse_error, "%s: %s is off by %.2e", what.c_str(), lse_name,
           difference);
  });
}

/// An attention call whose tensors are recorded ones.
inline Attention loaded(const st_file& file, std::int32_t dtype, const char* q, const char* k,
                        const char* v, const char* q_loc, const char* kv_loc, bool causal) {
  Model model;
  model.heads = 4;
  Attention made(model, dtype, offsets(file, q_loc), offsets(file, kv_loc), causal, 1);
  const Array all = recorded(file, q, dtype);
  made.q.each([&](std::int64_t i, std::int64_t j, std::int64_t d) {
    made.q.set(i, j, d, all.at(i, j, d));
  });
  made.k = recorded(file, k, dtype);
  made.v = recorded(file, v, dtype);
  return made;
}

}  // namespace test
