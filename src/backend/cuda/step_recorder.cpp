#include "backend/cuda/step_recorder.h"

#include <algorithm>
#include <bit>

#include "core/checked.h"
#include "core/fail.h"
#include "core/log.h"

namespace paddock::cuda {
namespace {

/// Shapes kept at once; the one that was not used for longest gives way.
constexpr size_t kMostEntries = 64;
/// More tokens at once are worth their launches.
constexpr int32_t kMostTokens = 256;
/// Tables up to so many positions share a shape; beyond, shapes double.
constexpr int32_t kLeastPositions = 1024;

/// 1, 2, 4, 8, then in steps that waste an eighth at most.
int32_t round_up_tokens(int32_t n) {
  if (n <= 8) return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(n)));
  const auto step = std::max(8U, std::bit_ceil(static_cast<uint32_t>(n)) / 8);
  return static_cast<int32_t>(round_up(static_cast<uint64_t>(n), step));
}

}  // namespace

ShapeChoice choose_shape(const StepPlan& plan, const BackendLimits& limits, int32_t prefill_least) {
  int32_t most = 0;
  bool single = true;
  for (const LayerPlan& layer : plan.layers) {
    for (const SequenceView& s : layer.sequences) {
      most = std::max(most, static_cast<int32_t>(s.entries.size()));
      single &= s.n_tokens == 1;
    }
  }
  const int32_t n = plan.n_tokens();
  if (!single || n > kMostTokens) return {{n, most, prefill_least}, false};
  const auto least = static_cast<int32_t>(ceil_div(kLeastPositions, limits.geometry.block_size));
  const int32_t entries = std::max(most, least);
  return {{std::min(round_up_tokens(n), limits.max_tokens),
           static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(entries))), prefill_least},
          true};
}

StepRecorder::Entry& StepRecorder::entry_of(const StepShape& shape) {
  for (Entry& entry : entries_) {
    if (entry.shape == shape) return entry;
  }
  if (entries_.size() < kMostEntries) return entries_.emplace_back(Entry{shape, {}, nullptr, 0});
  Entry& oldest =
      *std::min_element(entries_.begin(), entries_.end(),
                        [](const Entry& a, const Entry& b) { return a.last_used < b.last_used; });
  oldest = Entry{shape, {}, nullptr, 0};
  return oldest;
}

bool StepRecorder::begin(const StepShape& shape, const std::vector<LayerUpload>& layers) {
  if (!enabled_) {
    state_ = State::kRunning;
    return true;
  }
  current_ = &entry_of(shape);
  const bool met = current_->last_used > 0;
  current_->last_used = ++clock_;
  if (current_->recording != nullptr) {
    if (current_->layers != layers) fail(ErrorCode::kInternal, "a recorded step's arrays moved");
    state_ = State::kReplaying;
    return false;
  }
  if (!met) {
    state_ = State::kRunning;
    return true;
  }
  current_->layers = layers;
  runtime_->begin_recording();
  state_ = State::kRecording;
  return true;
}

bool StepRecorder::end(bool completed) {
  const State state = std::exchange(state_, State::kIdle);
  if (state == State::kRecording) {
    if (!completed) {
      runtime_->discard_recording();
      return true;
    }
    try {
      current_->recording = runtime_->end_recording();
    } catch (const Error& e) {
      log(LogLevel::kWarning, "{}; steps are not recorded any more, decoding is slower", e.what());
      clear();
      enabled_ = false;
      state_ = State::kRunning;
      return false;
    }
  }
  if (state == State::kRecording || state == State::kReplaying) {
    runtime_->replay(*current_->recording);
  }
  return true;
}

void StepRecorder::abandon() noexcept {
  if (state_ == State::kRecording) runtime_->discard_recording();
  state_ = State::kIdle;
}

void StepRecorder::clear() {
  entries_.clear();
  current_ = nullptr;
}

}  // namespace paddock::cuda
