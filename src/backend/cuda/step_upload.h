// What a step's kernels need to know, brought to the device with one copy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device_runtime.h"

namespace paddock::cuda {

/// One layer's share of the step, as device pointers.
struct LayerUpload {
  const KvDestination* destinations;   // [n_tokens]
  const AttentionSequence* sequences;  // [n_sequences]
  const BlockEntry* entries;           // the layer's tables, one after another
  const int32_t* angle_rows;
  const int64_t* uses_first;  // [n_sequences] into the step's uses
  int32_t max_entries;        // longest table
  bool measured;              // some sequence has uses
};

/// Collects a plan in pinned memory and copies it over. Tables stay on the device from step to
/// step: of them only entries that changed travel. All memory is taken by the constructor.
class StepUpload {
 public:
  StepUpload(std::shared_ptr<DeviceRuntime> runtime, const BackendLimits& limits);

  static uint64_t device_bytes(const BackendLimits& limits);

  /// Queries of sequences with at least `prefill_least` tokens go to prefill tiles, all others to
  /// the list of single ones. The last upload must have been waited for.
  void upload(const StepPlan& plan, int32_t prefill_least);

  const int32_t* tokens() const { return tokens_; }
  const int32_t* angle_positions() const { return angle_positions_; }
  const LayerUpload& layer(int32_t i) const { return layers_[i]; }
  const int32_t* decode_tokens() const { return decode_tokens_; }
  const int32_t* decode_sequences() const { return decode_sequences_; }
  int32_t n_decode() const { return n_decode_; }
  const PrefillTile* tiles() const { return tiles_; }
  int32_t n_tiles() const { return n_tiles_; }
  int64_t n_uses() const { return n_uses_; }  // of all layers

 private:
  template <typename T>
  T* place(int64_t count, const T** device);
  void place_lists(const StepPlan& plan, int32_t prefill_least);
  void place_layer(const StepPlan& plan, int32_t layer);
  void place_changes(const StepPlan& plan);

  std::shared_ptr<DeviceRuntime> runtime_;
  BackendLimits limits_;
  DeviceArray staged_;  // the copy of host_
  DeviceArray tables_;  // [layers][max_sequences][max_entries of the layer]
  PinnedArray host_;
  uint64_t used_ = 0;               // bytes of host_ taken by this step
  std::vector<BlockEntry> mirror_;  // what tables_ holds
  std::vector<int64_t> first_;      // [n_layers] where a layer's tables begin

  const int32_t* tokens_ = nullptr;
  const int32_t* angle_positions_ = nullptr;
  const int32_t* decode_tokens_ = nullptr;
  const int32_t* decode_sequences_ = nullptr;
  const PrefillTile* tiles_ = nullptr;
  int32_t n_decode_ = 0, n_tiles_ = 0;
  int64_t n_uses_ = 0;
  std::vector<LayerUpload> layers_;
};

}  // namespace paddock::cuda
