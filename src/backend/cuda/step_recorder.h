// Recorded steps: the launches of a decode step, replayed for later steps of the same shape (CUDA
// graphs on a device).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device_runtime.h"
#include "backend/cuda/step_upload.h"

namespace paddock::cuda {

/// The shape of a step's launches. Where every sequence brings one token, so that steps will be
/// alike, it is rounded up and `recordable`.
struct ShapeChoice {
  StepShape shape;
  bool recordable;
};
ShapeChoice choose_shape(const StepPlan& plan, const BackendLimits& limits, int32_t prefill_least);

/// The first step of a shape runs as it is, the second is recorded, later ones are replayed.
class StepRecorder {
 public:
  explicit StepRecorder(std::shared_ptr<DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}

  /// Before a recordable step's operations, with the places of what it reads. False if it will be
  /// replayed. Otherwise they have to be called: they run, or are recorded until end().
  bool begin(const StepShape& shape, const std::vector<LayerUpload>& layers);
  /// After them, or in their place: replays. False if they were to be recorded and that failed:
  /// nothing has been run, and from now on nothing is recorded.
  bool end(bool completed);
  /// Ends a recording that an error broke off.
  void abandon() noexcept;
  /// Forgets everything: places have changed.
  void clear();

 private:
  enum class State { kIdle, kRunning, kRecording, kReplaying };
  struct Entry {
    StepShape shape;
    std::vector<LayerUpload> layers;       // as they were when it was recorded
    std::unique_ptr<Recording> recording;  // null: met once
    int64_t last_used = 0;
  };
  Entry& entry_of(const StepShape& shape);

  std::shared_ptr<DeviceRuntime> runtime_;
  std::vector<Entry> entries_;
  Entry* current_ = nullptr;
  State state_ = State::kIdle;
  int64_t clock_ = 0;
  bool enabled_ = true;
};

}  // namespace paddock::cuda
