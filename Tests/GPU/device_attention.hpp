// Attention problems in memory of a device.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "attention.hpp"
#include "driver.hpp"

namespace test {

/// A tensor of the current device like one of the host's: with its strides, and not a byte
/// beyond its last element.
class DeviceArray {
 public:
  /// `shift`: bytes that its address is beyond a multiple of 256.
  explicit DeviceArray(const Array& host, CUdevice device = 0, std::size_t shift = 0)
      : view_(host.view()), bytes_(extent(host)), memory_(bytes_ + shift) {
    view_.data = memory_.pointer<char>() + shift;
    view_.device_type = MLA_DEVICE_CUDA;
    view_.device_id = device;
  }

  const mla::tensor& view() const { return view_; }
  mla::tensor& view() { return view_; }
  CUdeviceptr address() const { return reinterpret_cast<CUdeviceptr>(view_.data); }

  void upload(const Array& host, CUstream stream) const {
    DRIVER(cuMemcpyHtoDAsync_v2(address(), host.view().data, bytes_, stream));
  }
  void download(Array& host, CUstream stream) const {
    DRIVER(cuMemcpyDtoHAsync_v2(host.view().data, address(), bytes_, stream));
  }

 private:
  static std::size_t extent(const Array& host) {
    std::int64_t last = 0;
    for (int i = 0; i < host.view().ndim; ++i) {
      if (host.size(i) == 0) return 0;
      last += (host.size(i) - 1) * host.view().strides[i];
    }
    return static_cast<std::size_t>(last + 1) * element_size(host.view().dtype);
  }

  mla::tensor view_;
  std::size_t bytes_;
  DeviceBytes memory_;
};

inline mla_backend_config config_on(const Model& model, CUdevice device = 0) {
  mla_backend_config config = model.config();
  config.device_type = MLA_DEVICE_CUDA;
  config.device_id = device;
  return config;
}

/// The tensors of a run on the host, and theirs on the current device.
class DeviceAttention {
 public:
  explicit DeviceAttention(Attention& host, CUdevice device = 0, std::size_t shift = 0)
      : q(host.q, device, shift),
        k(host.k, device, shift),
        v(host.v, device, shift),
        out(host.out, device, shift % element_size(host.out.view().dtype)),
        lse(host.lse, device, shift / 4 * 4),
        host_(host) {}

  /// Results too: what the host's hold shows where nothing was written.
  void upload(CUstream stream) const {
    q.upload(host_.q, stream);
    k.upload(host_.k, stream);
    v.upload(host_.v, stream);
    out.upload(host_.out, stream);
    lse.upload(host_.lse, stream);
  }
  void download(CUstream stream) const {
    out.download(host_.out, stream);
    lse.download(host_.lse, stream);
  }

  void prepare(mla::backend& backend) {
    if (host_.causal) {
      backend.prepare_metadata(host_.q_loc);
    } else {
      const mla_context_chunk chunks[] = {host_.chunk(0)};
      backend.prepare_metadata(host_.q_loc, chunks);
    }
    reserve(backend);
  }

  /// The workspace that a prepared batch wants.
  void reserve(const mla::backend& backend) {
    const auto bytes = static_cast<std::size_t>(backend.workspace_size());
    workspace_ = std::make_unique<DeviceBytes>(bytes);
    scratch = bytes > 0 ? mla::workspace{workspace_->pointer<void>(), static_cast<std::int64_t>(bytes)}
                        : mla::workspace{};
  }

  /// Of what was prepared.
  void launch(const mla::backend& backend, CUstream stream, std::int32_t chunk = 0) const {
    if (host_.causal) {
      backend.run_prefill_new_tokens(q.view(), k.view(), v.view(), out.view(), &lse.view(), scratch, stream);
    } else {
      backend.run_prefill_context_chunk(host_.chunk(chunk), q.view(), k.view(), v.view(), out.view(),
                                        lse.view(), scratch, stream);
    }
  }

  void run(mla::backend& backend, CUstream stream) {
    prepare(backend);
    upload(stream);
    launch(backend, stream);
    download(stream);
  }

  DeviceArray q, k, v, out, lse;
  mla::workspace scratch;

 private:
  Attention& host_;
  std::unique_ptr<DeviceBytes> workspace_;
};

}  // namespace test
