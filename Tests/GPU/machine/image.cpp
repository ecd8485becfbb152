// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <elf.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "failure.hpp"

namespace gpu {
namespace {

constexpr char text_magic[] = "software gpu ";
/// EM_CUDA.
constexpr Elf64_Half cuda_machine = 190;
/// Compilers of CUDA 12.9 give code for GPUs of capability 10.0 and later ABI version 8, in
/// which flags are laid out another way, and all other 7.
constexpr unsigned char newest_abi = 8;
/// The first driver that knows of version 8.
constexpr int driver_of_newest_abi = 12080;

}  // namespace

Image::Image(const void* code, int driver_version) {
  require(code != nullptr, CUDA_ERROR_INVALID_VALUE);
  const char* text = static_cast<const char*>(code);
  is_elf_ = std::memcmp(text, ELFMAG, SELFMAG) == 0;
  if (!is_elf_) {
    require(std::strncmp(text, text_magic, sizeof(text_magic) - 1) == 0, CUDA_ERROR_INVALID_IMAGE);
    architecture_ = std::atoi(text + sizeof(text_magic) - 1);
    return;
  }
  Elf64_Ehdr header;
  std::memcpy(&header, code, sizeof(header));
  require(header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_machine == cuda_machine,
          CUDA_ERROR_INVALID_IMAGE);
  const bool is_newest = header.e_ident[EI_ABIVERSION] == newest_abi;
  require(header.e_ident[EI_ABIVERSION] <= newest_abi && (!is_newest || driver_version >= driver_of_newest_abi),
          CUDA_ERROR_NO_BINARY_FOR_GPU);
  architecture_ = static_cast<int>((is_newest ? header.e_flags >> 8 : header.e_flags) & 0xFF);
  const std::size_t size = std::max<std::size_t>(
      header.e_shoff + std::size_t{header.e_shnum} * header.e_shentsize,
      header.e_phoff + std::size_t{header.e_phnum} * header.e_phentsize);
  bytes_.assign(text, size);
}

bool Image::runs_on(int capability) const {
  return architecture_ / 10 == capability / 10 && architecture_ <= capability;
}

bool Image::has(const std::string& kernel) const {
  const std::string section = ".text." + kernel;
  return !is_elf_ || bytes_.find(section.c_str(), 0, section.size() + 1) != std::string::npos;
}

}  // namespace gpu
