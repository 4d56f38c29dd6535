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

  /// Runs a recordable step: `launches` asks for all its operations (false: it was stopped) and
  /// `layers` are the places of what they read, the same for every step of a shape. Recorded ones
  /// are replayed instead. Where a recording fails nothing has been run, so that `launches` is
  /// called again; from then on nothing is recorded. False if `launches` was stopped.
  bool run(const StepShape& shape, const std::vector<LayerUpload>& layers,
           FunctionRef<bool()> launches);
  /// Forgets everything: places have changed.
  void clear() { entries_.clear(); }

 private:
  struct Entry {
    StepShape shape;
    std::vector<LayerUpload> layers;       // as they were when it was recorded
    std::unique_ptr<Recording> recording;  // null: met once
    int64_t last_used = 0;
  };
  Entry& entry_of(const StepShape& shape);
  /// False if it was stopped. Where recording fails, enabled_ is false afterwards.
  bool record(Entry& entry, FunctionRef<bool()> launches);

  std::shared_ptr<DeviceRuntime> runtime_;
  std::vector<Entry> entries_;
  int64_t clock_ = 0;
  bool enabled_ = true;
};

}  // namespace paddock::cuda
