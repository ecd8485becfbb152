// The machine itself: code, launches, and what becomes of a context in which one fails.
//
// SPDX-License-Identifier: Apache-2.0
#include <elf.h>

#include "launches.hpp"

namespace {

using test::Code;
using test::launch;
using test::Numbers;

CUresult loaded(const void* image) {
  CUlibrary library = nullptr;
  return cuLibraryLoadData(&library, image, nullptr, nullptr, 0, nullptr, nullptr, 0);
}

/// A cubin with nothing but a header and a section's name.
test::Bytes cubin(unsigned architecture, Elf64_Half machine = 190, unsigned char abi = 7) {
  const char name[] = ".text.gpu_test_add";
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_ABIVERSION] = abi;
  header.e_machine = machine;
  header.e_flags = abi < 8 ? architecture | architecture << 16 : architecture << 8 | 0x06000002;
  header.e_shoff = sizeof(header) + sizeof(name);
  test::Bytes bytes(sizeof(header) + sizeof(name));
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), name, sizeof(name));
  return bytes;
}

void images() {
  const test::Primary primary;
  CUlibrary library = nullptr;
  CUkernel kernel = nullptr;
  CHECK(loaded("software gpu 90") == CUDA_SUCCESS);
  CHECK(loaded("software gpu 80") == CUDA_ERROR_NO_BINARY_FOR_GPU);
  CHECK(loaded("software gpu 100") == CUDA_ERROR_NO_BINARY_FOR_GPU);
  CHECK(loaded("something else") == CUDA_ERROR_INVALID_IMAGE);
  CHECK(loaded(nullptr) == CUDA_ERROR_INVALID_VALUE);
  CHECK(loaded(cubin(90).data()) == CUDA_SUCCESS);
  CHECK(loaded(cubin(80).data()) == CUDA_ERROR_NO_BINARY_FOR_GPU);
  CHECK(loaded(cubin(90, EM_X86_64).data()) == CUDA_ERROR_INVALID_IMAGE);
  CHECK(loaded(cubin(90, 190, 8).data()) == CUDA_SUCCESS);
  CHECK(loaded(cubin(100, 190, 8).data()) == CUDA_ERROR_NO_BINARY_FOR_GPU);
  CHECK(loaded(cubin(90, 190, 9).data()) == CUDA_ERROR_NO_BINARY_FOR_GPU);
  DRIVER(cuLibraryLoadData(&library, cubin(90).data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  CHECK(cuLibraryGetKernel(&kernel, library, "gpu_test_add") == CUDA_SUCCESS);
  CHECK(cuLibraryGetKernel(&kernel, library, "gpu_test_diverge") == CUDA_ERROR_NOT_FOUND);
  CHECK(cuLibraryUnload(library) == CUDA_SUCCESS);
  CHECK(cuLibraryGetKernel(&kernel, library, "gpu_test_add") == CUDA_ERROR_INVALID_HANDLE);
  CHECK(cuLibraryUnload(library) == CUDA_ERROR_INVALID_HANDLE);
}

void images_of_later_compilers() {
  const test::Primary primary;
  CHECK(loaded(cubin(90).data()) == CUDA_SUCCESS);
  CHECK(loaded(cubin(90, 190, 8).data()) == CUDA_ERROR_NO_BINARY_FOR_GPU);
}

void minor_capabilities() {
  DRIVER(cuInit(0));
  CHECK(loaded("software gpu 80") == CUDA_SUCCESS);
  CHECK(loaded("software gpu 86") == CUDA_SUCCESS);
  CHECK(loaded("software gpu 89") == CUDA_ERROR_NO_BINARY_FOR_GPU);
}

void results() {
  const test::Primary primary;
  const Code code;
  const Numbers numbers(code, {1, 2, 3});
  numbers.add(10);
  CHECK(numbers.values() == std::vector<int>({11, 12, 13}));
}

void shapes() {
  const test::Primary primary;
  const Code code;
  const CUkernel add = code.kernel("gpu_test_add");
  const AddLaunch none{nullptr, 0, 0};
  CHECK(launch(add, none, nullptr, {1000, 2, 1}) == CUDA_SUCCESS);
  CHECK(launch(add, none, nullptr, {0, 1, 1}) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(add, none, nullptr, {1, 65536, 1}) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(add, none, nullptr, {1u << 31, 1, 1}) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(add, none, nullptr, {}, {0, 1, 1}) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(add, none, nullptr, {}, {1025, 1, 1}) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(add, none, nullptr, {}, {64, 1, 1}) == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  CHECK(launch(code.kernel("gpu_test_large"), LargeLaunch{}) == CUDA_ERROR_INVALID_VALUE);
  CHECK(launch(reinterpret_cast<CUkernel>(1), none) == CUDA_ERROR_INVALID_HANDLE);
  CHECK(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, nullptr) ==
        CUDA_ERROR_INVALID_VALUE);
  DRIVER(cuCtxSynchronize());
}

void shared_memory_is_asked_for() {
  const test::Primary primary;
  const Code code;
  const CUkernel add = code.kernel("gpu_test_add");
  const AddLaunch none{nullptr, 0, 0};
  const int bytes = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
  CHECK(launch(add, none, nullptr, {}, {32}, 49152) == CUDA_SUCCESS);
  CHECK(launch(add, none, nullptr, {}, {32}, 49153) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuKernelSetAttribute(bytes, 232449, add, 0) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuKernelSetAttribute(bytes, 1, add, 2) == CUDA_ERROR_INVALID_DEVICE);
  CHECK(cuKernelSetAttribute(bytes, 60000, add, 1) == CUDA_SUCCESS);
  CHECK(launch(add, none, nullptr, {}, {32}, 60000) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuKernelSetAttribute(bytes, 60000, add, 0) == CUDA_SUCCESS);
  CHECK(launch(add, none, nullptr, {}, {32}, 60000) == CUDA_SUCCESS);
  CHECK(launch(add, none, nullptr, {}, {32}, 60001) == CUDA_ERROR_INVALID_VALUE);
}

CUresult encoded(CUdeviceptr address, unsigned long long stride, unsigned box, int swizzle) {
  alignas(64) CUtensorMap map{};
  const unsigned long long sizes[] = {192, 2, 100}, strides[] = {384, stride};
  const unsigned boxes[] = {box, 1, 128}, ones[] = {1, 1, 1};
  return cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, reinterpret_cast<void*>(address), sizes,
                                strides, boxes, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

void tensor_maps() {
  const test::Primary primary;
  const int swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
  CHECK(encoded(4096, 768, 64, swizzle) == CUDA_SUCCESS);
  CHECK(encoded(4098, 768, 64, swizzle) == CUDA_ERROR_INVALID_VALUE);
  CHECK(encoded(4096, 770, 64, swizzle) == CUDA_ERROR_INVALID_VALUE);
  CHECK(encoded(4096, 768, 72, swizzle) == CUDA_ERROR_INVALID_VALUE);
  CHECK(encoded(4096, 768, 64, 0) == CUDA_ERROR_NOT_SUPPORTED);
}

/// A fault shows when somebody waits, and from then on everywhere in its context.
void expect_lost(const test::Primary& primary, CUresult error) {
  CUdeviceptr address = 0;
  CUstream stream = nullptr;
  CHECK(cuCtxSynchronize() == error);
  CHECK(cuCtxSynchronize() == error);
  CHECK(cuMemAlloc_v2(&address, 8) == error);
  CHECK(cuStreamCreate(&stream, 0) == error);
  CHECK(cuCtxPushCurrent_v2(primary.context()) == CUDA_SUCCESS);
  CHECK(cuCtxPopCurrent_v2(nullptr) == CUDA_SUCCESS);
}

void touches_the_host() {
  const test::Primary primary;
  const Code code;
  int number = 1;
  CHECK(launch(code.kernel("gpu_test_add"), AddLaunch{&number, 1, 1}) == CUDA_SUCCESS);
  expect_lost(primary, CUDA_ERROR_ILLEGAL_ADDRESS);
  CHECK(number == 1);
}

void touches_another_device() {
  const test::Primary other(1);
  const test::DeviceBytes memory(4);
  const test::Primary primary(0);
  const Code code;
  const CUkernel add = code.kernel("gpu_test_add");
  CHECK(launch(add, AddLaunch{memory.pointer<int>(), 1, 1}) == CUDA_SUCCESS);
  expect_lost(primary, CUDA_ERROR_ILLEGAL_ADDRESS);
  DRIVER(cuCtxPushCurrent_v2(other.context()));
  DRIVER(cuCtxSynchronize());
  CHECK(memory.download() == test::Bytes(4, 0xFF));
}

void touches_what_is_beyond_or_gone() {
  const test::Primary primary;
  const Code code;
  const CUkernel add = code.kernel("gpu_test_add");
  const test::DeviceBytes memory(400);
  CHECK(launch(add, AddLaunch{memory.pointer<int>(), 101, 1}, nullptr, {4}) == CUDA_SUCCESS);
  expect_lost(primary, CUDA_ERROR_ILLEGAL_ADDRESS);
}

void reads_freed_memory() {
  const test::Primary primary;
  const Code code;
  CUdeviceptr gone = 0;
  DRIVER(cuMemAlloc_v2(&gone, 4));
  DRIVER(cuMemFree_v2(gone));
  CHECK(launch(code.kernel("gpu_test_add"), AddLaunch{reinterpret_cast<int*>(gone), 1, 1}) ==
        CUDA_SUCCESS);
  expect_lost(primary, CUDA_ERROR_ILLEGAL_ADDRESS);
}

void breaks_a_rule() {
  const test::Primary primary;
  const Code code;
  CHECK(launch(code.kernel("gpu_test_diverge"), DivergeLaunch{}) == CUDA_SUCCESS);
  expect_lost(primary, CUDA_ERROR_LAUNCH_FAILED);
}

void reaches_pages() {
  const test::Primary primary;
  const Code code;
  int number = 1;
  CHECK(launch(code.kernel("gpu_test_add"), AddLaunch{&number, 1, 1}) == CUDA_SUCCESS);
  DRIVER(cuCtxSynchronize());
  CHECK(number == 2);
}

void of_another_device() {
  const test::Primary primary(1);
  const Code code(90);
  const AddLaunch none{nullptr, 0, 0};
  CHECK(launch(code.kernel("gpu_test_add"), none) == CUDA_ERROR_NO_BINARY_FOR_GPU);
  CUstream other = nullptr;
  const test::Primary first(0);
  DRIVER(cuStreamCreate(&other, 0));
  CHECK(launch(code.kernel("gpu_test_add"), none, other) == CUDA_SUCCESS);
  DRIVER(cuCtxPushCurrent_v2(primary.context()));
  CHECK(launch(Code(80).kernel("gpu_test_add"), none, other) == CUDA_ERROR_INVALID_HANDLE);
}

}  // namespace

int main(int argc, char** argv) {
  using test::isolated;
  const test::Environment two{{"MLA_TEST_GPUS", "90,80"}}, one_86{{"MLA_TEST_GPUS", "86"}};
  return test::run(argc, argv,
                   {isolated("machine: images", images),
                    isolated("machine: images of later compilers", images_of_later_compilers,
                             {{"MLA_TEST_GPU_DRIVER", "12.2"}}),
                    isolated("machine: minor capabilities", minor_capabilities, one_86),
                    isolated("machine: results of launches", results),
                    isolated("machine: shapes of launches", shapes),
                    isolated("machine: shared memory", shared_memory_is_asked_for, two),
                    isolated("machine: tensor maps", tensor_maps),
                    isolated("machine: a kernel touches the host", touches_the_host),
                    isolated("machine: ... another device", touches_another_device, two),
                    isolated("machine: ... what is beyond", touches_what_is_beyond_or_gone),
                    isolated("machine: ... what is gone", reads_freed_memory),
                    isolated("machine: a kernel breaks a rule", breaks_a_rule),
                    isolated("machine: pages that are reached", reaches_pages,
                             {{"MLA_TEST_GPU_PAGEABLE", "1"}}),
                    isolated("machine: code and streams of another device", of_another_device, two)});
}
