// A C++ program that embeds Python: a backend written in Python is registered,
// chosen and run through the C ABI, also from threads that Python has never seen
// and, refused, after the interpreter is gone.
//
// SPDX-License-Identifier: Apache-2.0
#include <Python.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "mla_prefill.hpp"

extern "C" int run_backend(const char* name, int threads);
extern "C" const char* last_message();

namespace {

const char* const backends = R"(
import numpy as np
from mla_prefill import MLAPrefillBackend, register_mla_prefill_backend


@register_mla_prefill_backend("PYTHON_MEAN")
class Mean(MLAPrefillBackend):
    supported_dtypes = ["float32"]

    @staticmethod
    def get_name():
        return "MEAN_IN_PYTHON"

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        out, lse = np.empty_like(v), np.empty((self.num_heads, len(v)), np.float32)
        offsets = self._prefill_metadata.query_start_loc
        for begin, end in zip(offsets, offsets[1:]):
            counts = np.arange(1, end - begin + 1)
            out[begin:end] = v[begin:end].cumsum(0) / counts[:, None, None]
            lse[:, begin:end] = np.log(counts)
        return (out, lse) if return_softmax_lse else out

    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        raise NotImplementedError


@register_mla_prefill_backend("PYTHON_RAISING")
class Raising(Mean):
    def run_prefill_new_tokens(self, *arguments, **keywords):
        raise RuntimeError("said in Python")
)";

int failures = 0;

void expect(bool holds, const char* what) {
  std::printf("%s %s\n", holds ? "ok" : "not ok", what);
  if (!holds) {
    std::printf("  last message: %s\n", last_message());
    ++failures;
  }
}

}  // namespace

int main() {
  Py_InitializeEx(0);
  if (PyRun_SimpleString(backends) != 0) return 1;
  // The main thread lets go of the GIL, as a host that only embeds does.
  PyThreadState* state = PyEval_SaveThread();

  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  config.dtype = MLA_DTYPE_FLOAT32;
  config.backend = "PYTHON_MEAN";
  expect(std::strcmp(mla::select_backend(config), "PYTHON_MEAN") == 0, "C++ selects it");
  config.dtype = MLA_DTYPE_BFLOAT16;
  try {
    mla::select_backend(config);
    expect(false, "its rules are asked");
  } catch (const mla::error& error) {
    expect(std::strstr(error.what(), "dtype bfloat16 not supported") != nullptr,
           "its rules are asked");
  }
  expect(run_backend("PYTHON_MEAN", 1) == 0, "C++ runs it");
  expect(run_backend("PYTHON_MEAN", 4) == 0, "four threads run it");
  expect(run_backend("PYTHON_RAISING", 1) == MLA_ERROR_INTERNAL &&
             std::strcmp(last_message(), "RuntimeError: said in Python") == 0,
         "an exception is a status and a message");

  PyEval_RestoreThread(state);
  expect(Py_FinalizeEx() == 0, "the interpreter ends");
  expect(run_backend("PYTHON_MEAN", 1) == MLA_ERROR_INTERNAL &&
             std::strstr(last_message(), "interpreter") != nullptr,
         "without an interpreter it is refused");
  expect(mla_remove_backend("PYTHON_MEAN") == MLA_OK, "and can be removed");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
