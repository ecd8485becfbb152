// SPDX-License-Identifier: Apache-2.0
#include "capture.hpp"

#include <algorithm>

#include "failure.hpp"

namespace gpu {
namespace {

bool contains(const std::vector<WorkPointer>& list, const WorkPointer& work) {
  return std::find(list.begin(), list.end(), work) != list.end();
}

[[noreturn]] void spoil(Capture& capture, CUresult code) {
  capture.is_invalid = true;
  throw Failure{code};
}

}  // namespace

WorkPointer Capture::add(Stream& stream, std::function<void()> action) {
  require(!is_invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  const auto made = std::make_shared<Work>();
  made->context = stream.context;
  made->before = stream.captured_last;
  made->action = std::move(action);
  graph.nodes.push_back(made);
  stream.captured_last = {made};
  return made;
}

void Capture::join(Stream& stream, const std::vector<WorkPointer>& after) {
  require(!is_invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  if (std::find(streams.begin(), streams.end(), &stream) == streams.end()) streams.push_back(&stream);
  for (const WorkPointer& each : after) {
    if (!contains(stream.captured_last, each)) stream.captured_last.push_back(each);
  }
}

bool Capture::is_joined() const {
  std::vector<WorkPointer> reached = origin->captured_last;
  for (std::size_t i = 0; i < reached.size(); ++i) {
    const std::vector<WorkPointer> before = reached[i]->before;
    for (const WorkPointer& each : before) {
      if (!contains(reached, each)) reached.push_back(each);
    }
  }
  return std::all_of(streams.begin(), streams.end(), [&](const Stream* stream) {
    return std::all_of(stream->captured_last.begin(), stream->captured_last.end(),
                       [&](const WorkPointer& each) { return contains(reached, each); });
  });
}

void Captures::begin(Stream& stream, int mode) {
  require(mode >= CU_STREAM_CAPTURE_MODE_GLOBAL && mode <= CU_STREAM_CAPTURE_MODE_RELAXED,
          CUDA_ERROR_INVALID_VALUE);
  require(&stream != &stream.context->legacy(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  require(stream.capture == nullptr, CUDA_ERROR_INVALID_VALUE);
  stream.capture = std::make_shared<Capture>();
  stream.capture->mode = mode;
  stream.capture->thread = std::this_thread::get_id();
  stream.capture->origin = &stream;
  stream.capture->streams = {&stream};
  captures_.push_back(stream.capture);
}

Graph Captures::end(Stream& stream) {
  const std::shared_ptr<Capture> capture = stream.capture;
  require(capture != nullptr, CUDA_ERROR_INVALID_VALUE);
  require(capture->origin == &stream, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  require(capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED ||
              capture->thread == std::this_thread::get_id(),
          CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  const bool is_joined = capture->is_joined();
  for (Stream* each : capture->streams) {
    each->capture = nullptr;
    each->captured_last.clear();
  }
  captures_.erase(std::find(captures_.begin(), captures_.end(), capture));
  require(!capture->is_invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  require(is_joined, CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  return capture->graph;
}

void Captures::require_none(int mode_of_thread) {
  for (const auto& each : captures_) {
    const bool is_mine = each->thread == std::this_thread::get_id();
    const bool forbids =
        mode_of_thread == CU_STREAM_CAPTURE_MODE_GLOBAL
            ? each->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                  (is_mine && each->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            : mode_of_thread == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && is_mine &&
                  each->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
    if (forbids) spoil(*each, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
}

void Captures::require_not_capturing(Stream& stream) {
  if (stream.capture != nullptr) spoil(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  if (&stream == &stream.context->legacy()) require_no_blocking_one(*stream.context);
}

void Captures::require_not_capturing(const Context& context) {
  for (const auto& each : captures_) {
    if (each->origin->context == &context) spoil(*each, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
}

void Captures::require_no_blocking_one(Context& context) {
  context.each_blocking([](Stream& stream) {
    if (stream.capture != nullptr) spoil(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  });
}

void Captures::forget(const Context& context) {
  captures_.erase(std::remove_if(captures_.begin(), captures_.end(),
                                 [&](const auto& each) { return each->origin->context == &context; }),
                  captures_.end());
}

}  // namespace gpu
