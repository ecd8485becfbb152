# libmlaprefill: build, try, test, install.
#
#   make build                    the library, .build/release/libmlaprefill.so
#   make build ARCH=aarch64       that for 64-bit Arm, .build-aarch64/release/libmlaprefill.so, on another
#                                 machine (fetches 390 MB once; see Sources/Packaging/arm64-sdk.sh)
#   make demo                     what it does on recorded input, with errors and speed
#   make test                     what a change can break
#   make test-long                the rest: emulated CPUs, sanitizers, long searches
#   make test-python              the Python package's alone
#   make test-tables              every kernel table, those that this CPU lacks on a model
#   make test-arm64               the library for 64-bit Arm, on an emulator (fetches what its build does,
#                                 and 60 MB)
#   make test-vllm                the vLLM plug-in in a real engine (fetches 3.5 GB once)
#   make test-transformers        models of transformers (fetches 250 MB once)
#   make test-ggml                the backend for llama.cpp in llama.cpp (fetches and builds it once)
#   make test-amx BOCHS=source    the AMX kernels on an emulated CPU under Linux (see "How kernels are
#                                 tested" in the documentation)
#   make cubins                   machine code for GPUs, which the next build has in it (fetches NVRTC once)
#   make test-gpu-model           the CUDA kernels on an executable model of a GPU
#   make test-gpu                 the library and the Python package on a machine with that GPU
#   make test-cudnn [CUDNN=9.25.1.1]  plans that cuDNN makes for GPUs without one, as a table (fetches
#                                 1.5 GB once)
#   make bench                    speed against a rate measured in the same run
#   make bench-sparse             attention to selected keys against attention to all, and against
#                                 torch's products where `make test-python` has made its environment
#   make bench-vllm               prefill of a real vLLM engine, with the plug-in and without
#   make bench-transformers       models of transformers, with their own attention and with this
#   make bench-ggml               models in llama.cpp, with ggml's own attention and with this
#   make docs                     the documentation site, .build/docs/index.html (fetches 40 MB once)
#   make install PREFIX=/usr/local [LIBDIR=lib] [DESTDIR=]
#   make package [ARCH=aarch64]   Debian's packages and a tarball, .build/packages; without ARCH those of
#                                 this machine's architecture and of 64-bit Arm
#   make sdist                    the Python package's source distribution, .build-python/dist
#   make wheels [PYTHONS=...]     the Python package's wheels, for x86-64 and 64-bit Arm, .build/wheels
#                                 (fetches what the build for Arm does)
#   make ggml GGML=source         llama.cpp's backend, .build/ggml/libggml-mla.so, for a ggml that is
#                                 built from the source of llama.cpp or ggml (see "In llama.cpp" there)
#   make abi-record               what the header adds to the ABI, into the record that a gate holds it to
#   make sanitize                 the address and thread sanitizer runs of the tests alone
#   make fuzz [CALLS=n] [SEED=n] [FAIL=1]  malformed calls through the C ABI, as many as you
#                                 like; with FAIL good ones too, and allocations fail at random
#   make clean

SHELL := /bin/bash
PREFIX ?= /usr/local
LIBDIR ?= lib
DESTDIR ?=
ARCH ?= $(shell uname -m)
CALLS ?= 2000000
SEED ?= 1
FAIL ?= 0

# SwiftPM compiles the C targets itself; flags meant for other builds break it.
unexport CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS

header := include/mla_prefill.h
define_of = $(shell awk '$$1 ~ /define/ && $$2 == "$(1)" {print $$3}' $(header))
abi := $(call define_of,MLA_ABI_VERSION)
version := $(call define_of,MLA_VERSION_MAJOR).$(call define_of,MLA_VERSION_MINOR).$(call define_of,MLA_VERSION_PATCH)
soname := libmlaprefill.so.$(abi)
# The ABI, then the library's version: both are read off the file.
library := $(soname).$(version)
to := $(DESTDIR)$(PREFIX)
lib := $(to)/$(LIBDIR)
doc := $(to)/share/doc/mla_prefill

.PHONY: build demo test test-long test-python test-tables test-arm64 test-vllm test-transformers test-ggml test-amx bench bench-sparse bench-vllm bench-transformers bench-ggml install package sdist wheels ggml docs cubins abi-record test-gpu-model test-gpu test-cudnn sanitize fuzz clean

ifeq ($(ARCH),$(shell uname -m))
build_library := swift build -c release --product mlaprefill --disable-local-rpath
built_library := .build/release/libmlaprefill.so
strip := strip
else ifeq ($(ARCH),aarch64)
build_library := Sources/Packaging/arm64-build.sh -c release --product mlaprefill --disable-local-rpath
built_library := .build-aarch64/release/libmlaprefill.so
# The machine's own may know no other architecture's files.
strip = "$(shell Sources/Packaging/arm64-sdk.sh)/llvm-strip"
else
$(error ARCH = $(ARCH): is aarch64, or this machine's own)
endif

build:
	$(build_library)

demo:
	Sources/Packaging/debian-packages.sh demo
	$(MAKE) -s build
	swift run -c release mla-demo

test-python:
	Sources/Packaging/debian-packages.sh test
	Tests/run.sh python

test-tables:
	Sources/Packaging/debian-packages.sh test
	Tests/run.sh tables

test-arm64:
	Sources/Packaging/debian-packages.sh test cores
	Tests/run.sh arm64 arm64-build arm64-bf16 arm64-neon arm64-arithmetic arm64-swift arm64-python

test-vllm:
	Sources/Packaging/debian-packages.sh test vllm
	Tests/vLLM/run.sh

test-transformers:
	Sources/Packaging/debian-packages.sh test
	Tests/Transformers/run.sh

test-ggml:
	Sources/Packaging/debian-packages.sh test
	Tests/GGML/run.sh

test-amx:
	Sources/Packaging/debian-packages.sh test amx
	BOCHS="$(BOCHS)" Tests/AMXMachine/run.sh

test-gpu-model:
	Sources/Packaging/debian-packages.sh test
	Tests/run.sh gpu-model

test-gpu:
	Sources/Packaging/debian-packages.sh test
	Tests/run.sh gpu gpu-python

test-cudnn:
	Sources/Packaging/debian-packages.sh test
	Tests/run.sh build-tests
	Tests/CuDNN/run.sh $(CUDNN)

bench:
	Sources/Packaging/debian-packages.sh demo
	$(MAKE) -s build
	Tests/Bench/run.sh $(ARGS)

bench-sparse:
	Sources/Packaging/debian-packages.sh demo
	$(MAKE) -s build
	swift build -c release --product mla-bench 2>&1 | tail -1
	.build/release/mla-bench --selected 32768,131072 --new 512 --rounds 3 $(ARGS)
	@if .build-python/torch/bin/python -c 'import torch, mla_prefill' 2> /dev/null; then \
	  .build-python/torch/bin/python Tests/Bench/selected.py; \
	else echo "no torch: make test-python makes the environment that has it"; fi

bench-vllm:
	Sources/Packaging/debian-packages.sh test vllm
	Tests/vLLM/run.sh speed

bench-transformers:
	Sources/Packaging/debian-packages.sh test
	Tests/Transformers/run.sh speed

bench-ggml:
	Sources/Packaging/debian-packages.sh test
	Tests/GGML/run.sh speed

test:
	Sources/Packaging/debian-packages.sh test
	Tests/run.sh

test-long:
	Sources/Packaging/debian-packages.sh test docs test-package
	Tests/run.sh long

sanitize:
	Sources/Packaging/debian-packages.sh test
	Tests/run.sh address thread

fuzz:
	Sources/Packaging/debian-packages.sh test
	$(MAKE) -s install DESTDIR= PREFIX=$(CURDIR)/.build/stage
	$(MAKE) -s -C Tests/ABI fuzz CALLS=$(CALLS) SEED=$(SEED) FAIL=$(FAIL)

install: build
	install -d "$(to)/include" "$(lib)/pkgconfig" "$(lib)/cmake/mla_prefill" "$(doc)"
	install -m 644 include/mla_prefill.h include/mla_prefill.hpp "$(to)/include"
	install -m 755 $(built_library) "$(lib)/$(library)"
	# Profilers and debuggers name the kernels; all symbols are twice the library's size.
	$(strip) -w -K '*MLAKernels*' "$(lib)/$(library)"
	ln -sf $(library) "$(lib)/$(soname)"
	ln -sf $(soname) "$(lib)/libmlaprefill.so"
	$(call instantiate,mla_prefill.pc,pkgconfig)
	$(call instantiate,mla_prefillConfig.cmake,cmake/mla_prefill)
	$(call instantiate,mla_prefillConfigVersion.cmake,cmake/mla_prefill)
	# The library's own, and that of the Swift runtime in it.
	install -m 644 LICENSE python/licenses/swift-runtime.txt "$(doc)"

# Of this machine's architecture, and where that is not Arm, of Arm.
package:
	Sources/Packaging/debian-packages.sh package
	$(foreach each,$(if $(filter file,$(origin ARCH)),$(sort $(ARCH) aarch64),$(ARCH)),\
	  Sources/Packaging/package.sh $(each) $(version) &&) true

sdist:
	Sources/Packaging/debian-packages.sh test
	Tests/Packaging/sdist.sh

wheels:
	Sources/Packaging/debian-packages.sh wheels
	Sources/Packaging/wheels.sh $(PYTHONS)

ggml:
	$(MAKE) -s install DESTDIR= PREFIX=$(CURDIR)/.build/stage
	$(MAKE) -s -C Sources/GGMLBackend STAGE=$(CURDIR)/.build/stage OUT=$(CURDIR)/.build/ggml \
	  GGML="$(abspath $(GGML))" $(if $(GGML_BUILD),GGML_BUILD="$(abspath $(GGML_BUILD))")

docs:
	Sources/Packaging/debian-packages.sh docs
	Sources/Documentation/build.sh

cubins:
	Sources/MLACUDAKernels/cubins/make.py

abi-record:
	python3 Tests/Gates/abi.py record $(header)

# Fills in a template of Sources/Packaging. Files find one another from where they are.
up = $(shell realpath -ms --relative-to "/$(LIBDIR)/$(1)" /)
instantiate = sed -e 's/@VERSION@/$(version)/' -e 's/@LIBRARY_FILE@/$(library)/' -e 's|@LIBDIR@|$(LIBDIR)|' \
	-e 's/@LIBRARY_SONAME@/$(soname)/' -e 's|@UP@|$(call up,$(2))|' Sources/Packaging/$(1).in > "$(lib)/$(2)/$(1)"

clean:
	rm -rf .build .build-aarch64 .build-aarch64-tests .build-tests .build-tables .build-asan .build-tsan .build-python .build-amx python/.build
