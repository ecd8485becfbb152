// SPDX-License-Identifier: Apache-2.0
#include "product.hpp"

#include "../library_work.hpp"
#include "pack.hpp"

namespace cudnn {
namespace {

/// 16 bytes at a time, along whichever dimension is contiguous.
void check_matrix(const Tensor& t, std::int64_t rows, std::int64_t columns, const char* name) {
  require(t.dimensions == Extents{1, rows, columns, 1}, CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
          std::string(name) + " is of another shape");
  const bool is_aligned = (t.strides[2] == 1 ? t.strides[1] % 8 == 0 : t.strides[1] == 1 && t.strides[2] % 8 == 0) &&
                          t.alignment >= 16;
  require(is_aligned, CUDNN_STATUS_NOT_SUPPORTED_LAYOUT, std::string(name) + " is not aligned to 16 bytes");
  require(t.type == CUDNN_DATA_BFLOAT16 || t.type == CUDNN_DATA_HALF, CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, name);
  require(!t.is_virtual && !t.is_by_value && t.ragged_uid == 0, CUDNN_STATUS_NOT_SUPPORTED, name);
}

/// A row of A, or a column of B, as numbers.
std::vector<double> numbers(const View& view, std::int64_t number, std::size_t along, std::size_t across) {
  const auto [count, stride] = std::make_pair(view.tensor.dimensions[along], view.tensor.strides[along]);
  std::vector<double> made(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    made[static_cast<std::size_t>(i)] = load(view, view.data + 2 * (number * view.tensor.strides[across] + i * stride));
  }
  return made;
}

struct Launch {
  View a, b, c;

  bool run(const gpu::Reach& reach) const {
    for (const View& each : {a, b, c}) {
      const auto [one, rows, columns, none] = each.tensor.dimensions;
      const std::int64_t last = (rows - 1) * each.tensor.strides[1] + (columns - 1) * each.tensor.strides[2];
      if (!reach(each.data, static_cast<std::size_t>(2 * (last + 1)))) return false;
    }
    std::vector<std::vector<double>> rows;
    for (std::int64_t i = 0; i < a.tensor.dimensions[1]; ++i) rows.push_back(numbers(a, i, 2, 1));
    for (std::int64_t j = 0; j < b.tensor.dimensions[2]; ++j) {
      const std::vector<double> column = numbers(b, j, 1, 2);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        double sum = 0;
        for (std::size_t k = 0; k < column.size(); ++k) sum += rows[i][k] * column[k];
        const auto row = static_cast<std::int64_t>(i);
        store(c, c.data + 2 * (row * c.tensor.strides[1] + j * c.tensor.strides[2]), sum);
      }
    }
    return true;
  }
};

}  // namespace

Product product_of(const Descriptor& operation) {
  const Descriptor& how = operation.referred(CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  require(how.get<int>(CUDNN_ATTR_MATMUL_COMP_TYPE) == CUDNN_DATA_FLOAT, CUDNN_STATUS_NOT_SUPPORTED, "other sums");
  Product made{};
  made.a = tensor_of(operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC, 3);
  made.b = tensor_of(operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC, 3);
  made.c = tensor_of(operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC, 3);
  const std::int64_t rows = made.a.dimensions[1], depth = made.a.dimensions[2], columns = made.b.dimensions[2];
  check_matrix(made.a, rows, depth, "A");
  check_matrix(made.b, depth, columns, "B");
  check_matrix(made.c, rows, columns, "C");
  require(made.a.type == made.b.type && made.a.type == made.c.type, CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "two types");
  require(made.a.uid != made.b.uid && made.a.uid != made.c.uid && made.b.uid != made.c.uid,
          CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "an id twice");
  return made;
}

void execute_product(const Plan& plan, const Descriptor& pack, CUstream stream) {
  const Pointers pointers(plan, pack);
  const Launch launch{pointers.view(plan.product.a), pointers.view(plan.product.b), pointers.view(plan.product.c)};
  pointers.workspace(pack);
  const CUresult result = gpu_machine_submit(stream, [launch](const gpu::Reach& reach) { return launch.run(reach); });
  require(result == CUDA_SUCCESS, CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER,
          "the driver says " + std::to_string(result));
}

}  // namespace cudnn
