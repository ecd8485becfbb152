#include "tensor.hpp"

#include <sys/mman.h>

#include <SoftwareGPU.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>

int dtype_of(Format format) {
  const int dtypes[] = {1, 2, 3, 4};
  return dtypes[static_cast<int>(format)];
}

int bytes_of(Format format) { return format == Format::fp32 ? 4 : format == Format::fp8 ? 1 : 2; }

const char* name_of(Format format) {
  const char* const names[] = {"fp32", "fp16", "bf16", "fp8"};
  return names[static_cast<int>(format)];
}

std::uint32_t poison_of(Format format) {
  const std::uint32_t bits[] = {0x7fadbeef, 0x7dad, 0x7fad, 0x7f};
  return bits[static_cast<int>(format)];
}

static double fp8_value(std::uint32_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double size = (code & 0x7f) == 0x7f ? NAN
                      : exponent == 0       ? std::ldexp(mantissa, -9)
                                            : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -size : size;
}

/// Saturates at 448; of two codes as near the even one.
static std::uint32_t nearest_fp8(double value) {
  if (std::isnan(value)) return 0x7f;
  const double size = std::fmin(std::fabs(value), 448);
  std::uint32_t best = 0;
  for (std::uint32_t code = 1; code < 0x7f; ++code) {
    const double gain = std::fabs(fp8_value(best) - size) - std::fabs(fp8_value(code) - size);
    if (gain > 0 || (gain == 0 && code % 2 == 0)) best = code;
  }
  return best | (std::signbit(value) ? 0x80 : 0);
}

double value_of(Format format, std::uint32_t bits) {
  switch (format) {
    case Format::fp32: return float_of(bits);
    case Format::fp16: return fp16_value(static_cast<std::uint16_t>(bits));
    case Format::bf16: return float_of(bits << 16);
    case Format::fp8: return fp8_value(bits);
  }
  return 0;
}

std::uint32_t bits_from(Format format, double value) {
  const float single = static_cast<float>(value);
  switch (format) {
    case Format::fp32: return bits_of(single);
    case Format::fp16: return pack_fp16(single, 0);
    case Format::bf16: return pack_bf16(single, 0);
    case Format::fp8: return nearest_fp8(value);
  }
  return 0;
}

Tensor::Tensor(Format format, int rows, int heads, int dim, Layout layout)
    : format(format), rows(rows), heads(heads), dim(dim) {
  const long long piece = 16 / bytes_of(format);
  const auto in_pieces = [&](long long elements) { return (elements + piece - 1) / piece * piece; };
  const bool is_apart = layout == Layout::apart || layout == Layout::odd_tokens;
  head_stride = is_apart ? in_pieces(dim) + piece : layout == Layout::odd ? dim + 3 : dim;
  token_stride = heads * head_stride;
  if (layout == Layout::apart || layout == Layout::odd) token_stride = in_pieces(token_stride) + piece;
  if (layout == Layout::odd_tokens) token_stride += 3;
  lead = piece + (layout == Layout::shifted ? 1 : 0);
  allocate();
}

Tensor::Tensor(Format format, int rows, int heads, int dim, long long token_stride, long long head_stride)
    : format(format), rows(rows), heads(heads), dim(dim), token_stride(token_stride), head_stride(head_stride) {
  lead = 16 / bytes_of(format);
  allocate();
}

/// Untouched pages cost nothing: strides may be as large as an address allows.
void Tensor::allocate() {
  extent = rows == 0 ? 0 : (rows - 1) * token_stride + (heads - 1) * head_stride + dim;
  memory_bytes = static_cast<std::size_t>(lead + extent + 16) * bytes_of(format);
  void* pages = mmap(nullptr, memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) std::abort();
  memory = static_cast<unsigned char*>(pages);
  if (memory_bytes < 1u << 28) fill_with_poison();
  SoftwareGPU::memory.allow(address(0, 0, 0), static_cast<std::size_t>(extent) * bytes_of(format));
}

Tensor::~Tensor() {
  SoftwareGPU::memory.forbid(address(0, 0, 0));
  munmap(memory, memory_bytes);
}

unsigned char* Tensor::address(int row, int head, int d) const {
  return memory + (lead + row * token_stride + head * head_stride + d) * bytes_of(format);
}

std::uint32_t Tensor::load(const unsigned char* at) const {
  std::uint32_t bits = 0;
  std::memcpy(&bits, at, bytes_of(format));
  return bits;
}

void Tensor::store(unsigned char* at, std::uint32_t bits) const { std::memcpy(at, &bits, bytes_of(format)); }

std::uint32_t Tensor::bits(int row, int head, int d) const { return load(address(row, head, d)); }
double Tensor::get(int row, int head, int d) const { return value_of(format, bits(row, head, d)); }
void Tensor::set(int row, int head, int d, double value) { set_bits(row, head, d, bits_from(format, value)); }
void Tensor::set_bits(int row, int head, int d, std::uint32_t bits) { store(address(row, head, d), bits); }

std::vector<std::uint32_t> Tensor::bits(int first_row, int count) const {
  std::vector<std::uint32_t> all;
  for (int row = first_row; row < first_row + count; ++row)
    for (int head = 0; head < heads; ++head)
      for (int d = 0; d < dim; ++d) all.push_back(bits(row, head, d));
  return all;
}

void Tensor::fill(Random& random, double deviation, double mean) {
  for (int row = 0; row < rows; ++row)
    for (int head = 0; head < heads; ++head)
      for (int d = 0; d < dim; ++d) set(row, head, d, mean + deviation * random.normal());
}

void Tensor::copy(const Tensor& other, int from_row, int to_row, int count) {
  for (int row = 0; row < count; ++row)
    for (int head = 0; head < heads; ++head)
      for (int d = 0; d < dim; ++d) store(address(to_row + row, head, d), other.bits(from_row + row, head, d));
}

void Tensor::fill_with_poison() {
  const long long count = static_cast<long long>(memory_bytes) / bytes_of(format);
  for (long long i = 0; i < count; ++i) store(memory + i * bytes_of(format), poison_of(format));
}

bool Tensor::is_intact_outside(int first_row, int count) const {
  const long long all = static_cast<long long>(memory_bytes) / bytes_of(format);
  std::vector<bool> inside(static_cast<std::size_t>(all));
  for (int row = first_row; row < first_row + count; ++row)
    for (int head = 0; head < heads; ++head)
      for (int d = 0; d < dim; ++d) inside[(address(row, head, d) - memory) / bytes_of(format)] = true;
  for (long long i = 0; i < all; ++i)
    if (!inside[i] && load(memory + i * bytes_of(format)) != poison_of(format)) return false;
  return true;
}

mla_cuda_rows Tensor::view() const { return {address(0, 0, 0), token_stride, head_stride}; }
