#!/bin/bash
# `swift build` for 64-bit Arm Linux on another machine, into .build-aarch64.
#
#   arm64-build.sh SWIFT-BUILD-ARGUMENT...
set -euo pipefail
cd "$(dirname "$0")/../.."

sdk=$(Sources/Packaging/arm64-sdk.sh)
# The manifest is compiled for this machine: it is told what for.
MLA_ARCH=aarch64 swift build --triple aarch64-unknown-linux-gnu --sdk "$sdk/sysroot" \
  --toolset "$sdk/toolset.json" --scratch-path .build-aarch64 "$@"
