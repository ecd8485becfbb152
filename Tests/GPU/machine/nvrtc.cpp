// libnvrtc.so.12: compiles nothing but the kernels of this library, word for word, into an
// image that the machine takes.
//
// SPDX-License-Identifier: Apache-2.0
#include "../nvrtc.h"

#include <mla_cuda_kernels.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

/// By name, as #include has them; the program itself has none.
struct nvrtcProgram_st {
  std::string source;
  std::map<std::string, std::string> headers;
  std::string log, image;
};

namespace {

std::atomic<long> compilations{0};

/// Why this is not what the library has; "": it is.
std::string difference(const nvrtcProgram_st& program) {
  int count = 0;
  const mla_cuda_source* sources = mla_cuda_sources(&count);
  if (count == 0) return "";
  if (program.source != sources[0].text) return "error: another program than the library's";
  for (int i = 1; i < count; ++i) {
    const auto found = program.headers.find(sources[i].name);
    if (found == program.headers.end()) return std::string("error: cannot open ") + sources[i].name;
    if (found->second != sources[i].text) return std::string("error: another ") + sources[i].name;
  }
  return "";
}

/// Of an option like --gpu-architecture=sm_90; "" if there is none, which NVRTC would take.
std::string architecture_of(int count, const char* const* options) {
  const std::string prefix = "--gpu-architecture=sm_";
  for (int i = 0; i < count; ++i) {
    const std::string option = options[i];
    if (option.rfind(prefix, 0) == 0) return option.substr(prefix.size());
  }
  return "";
}

nvrtcResult store(const std::string& text, char* to) {
  std::memcpy(to, text.c_str(), text.size() + 1);
  return NVRTC_SUCCESS;
}

}  // namespace

nvrtcResult nvrtcVersion(int* major, int* minor) {
  *major = 12;
  *minor = 9;
  return NVRTC_SUCCESS;
}

const char* nvrtcGetErrorString(nvrtcResult result) {
  switch (result) {
    case NVRTC_SUCCESS: return "NVRTC_SUCCESS";
    case NVRTC_ERROR_INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case NVRTC_ERROR_INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case NVRTC_ERROR_INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case NVRTC_ERROR_COMPILATION: return "NVRTC_ERROR_COMPILATION";
    default: return "NVRTC_ERROR unknown";
  }
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char* source, const char*,
                               int header_count, const char* const* headers,
                               const char* const* header_names) {
  if (program == nullptr || source == nullptr || header_count < 0) return NVRTC_ERROR_INVALID_INPUT;
  *program = new nvrtcProgram_st{source, {}, "", ""};
  for (int i = 0; i < header_count; ++i) (*program)->headers[header_names[i]] = headers[i];
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
  if (program == nullptr || *program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char* const* options) {
  ++compilations;
  const std::string architecture = architecture_of(count, options);
  if (architecture.empty()) return NVRTC_ERROR_INVALID_OPTION;
  program->log = std::getenv("MLA_TEST_GPU_NVRTC_FAIL") != nullptr
                     ? "MLAKernels.cu(1): error: told to fail"
                     : difference(*program);
  if (!program->log.empty()) return NVRTC_ERROR_COMPILATION;
  program->image = "software gpu " + architecture + "\n";
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t* bytes) {
  *bytes = program->log.size() + 1;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* log) { return store(program->log, log); }

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t* bytes) {
  *bytes = program->image.size() + 1;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char* cubin) { return store(program->image, cubin); }

long gpu_nvrtc_compilations(void) { return compilations; }
