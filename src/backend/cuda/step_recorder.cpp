#include "backend/cuda/step_recorder.h"

#include <algorithm>
#include <bit>

#include "core/checked.h"
#include "core/fail.h"
#include "core/log.h"
#include "core/mix.h"

namespace paddock::cuda {
namespace {

/// Shapes kept at once; the one that was not used for longest gives way.
constexpr size_t kMostEntries = 64;
/// Steps of more tokens are not recorded: what they compute takes so much longer than launching it
/// that a replay would save little.
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
  uint64_t measured = 0;  // sequences under other rules may have other layers measured
  for (const LayerPlan& layer : plan.layers) {
    bool asks = false;
    for (const SequenceView& s : layer.sequences) {
      most = std::max(most, static_cast<int32_t>(s.entries.size()));
      single &= s.n_tokens == 1;
      asks |= s.uses != nullptr;
    }
    measured = mix(measured + (asks ? 1 : 0));
  }
  const int32_t n = plan.n_tokens();
  if (!single || n > kMostTokens) return {{n, most, prefill_least, 0}, false};
  const auto least =
      static_cast<int32_t>(ceil_div(kLeastPositions, limits.pool.geometry.block_size));
  const int32_t entries = std::max(most, least);
  return {{std::min(round_up_tokens(n), limits.step.max_tokens),
           static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(entries))), prefill_least,
           measured},
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

bool StepRecorder::run(const StepShape& shape, const std::vector<LayerUpload>& layers,
                       FunctionRef<bool()> launches) {
  if (!enabled_) return launches();
  Entry& entry = entry_of(shape);
  const bool met = entry.last_used > 0;
  entry.last_used = ++clock_;
  if (entry.recording != nullptr) {
    if (entry.layers != layers) fail(ErrorCode::kInternal, "a recorded step's arrays moved");
  } else {
    if (!met) return launches();
    entry.layers = layers;
    if (!record(entry, launches)) return false;
    if (!enabled_) return launches();
  }
  runtime_->replay(*entry.recording);
  return true;
}

bool StepRecorder::record(Entry& entry, FunctionRef<bool()> launches) {
  runtime_->begin_recording();
  bool completed = false;
  try {
    completed = launches();
  } catch (...) {
    runtime_->discard_recording();
    throw;
  }
  if (!completed) {
    runtime_->discard_recording();
    return false;
  }
  try {
    entry.recording = runtime_->end_recording();
  } catch (const Error& e) {
    log(LogLevel::kWarning, "{}; steps are not recorded any more, decoding is slower", e.what());
    entries_.clear();
    enabled_ = false;
  }
  return true;
}

}  // namespace paddock::cuda
