// What a step's kernels need to know, brought to the device with one copy.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device_runtime.h"

namespace paddock::cuda {

/// What a step's launches are made for. Steps of one shape differ in nothing but what lies in the
/// arrays, so that the launches of one may be replayed for another.
struct StepShape {
  int32_t n_tokens = 0;       // those of the plan, then ones that nobody asked for
  int32_t most_entries = 0;   // no table has more
  int32_t prefill_least = 0;  // sequences with as many tokens go to prefill tiles
  uint64_t measured = 0;      // a hash of which layers have something measured
  bool operator==(const StepShape&) const = default;
};

/// One layer's share of the step, as device pointers.
struct LayerUpload {
  const KvDestination* destinations = nullptr;   // [n_tokens]
  const AttentionSequence* sequences = nullptr;  // [n_sequences]
  const BlockEntry* entries = nullptr;           // the layer's tables, one after another
  const int32_t* angle_rows = nullptr;
  const int64_t* uses_first = nullptr;  // [n_sequences] into the step's uses
  int32_t max_entries = 0;              // of a table, at most
  bool measured = false;                // some sequence has uses
  bool operator==(const LayerUpload&) const = default;
};

/// Collects a plan in pinned memory and copies it over. Tables stay on the device from step to
/// step, at the place of their sequence: of them only entries that changed travel. All memory is
/// taken by the constructor.
class StepUpload {
 public:
  StepUpload(std::shared_ptr<DeviceRuntime> runtime, const BackendLimits& limits);

  static uint64_t device_bytes(const BackendLimits& limits);

  /// The last upload must have been waited for. A shape with more tokens than the plan has one
  /// token per sequence.
  void upload(const StepPlan& plan, const StepShape& shape);

  int32_t n_tokens() const { return n_tokens_; }
  int32_t n_sequences() const { return n_sequences_; }
  const int32_t* tokens() const { return tokens_; }
  const int32_t* angle_positions() const { return angle_positions_; }
  const std::vector<LayerUpload>& layers() const { return layers_; }
  const int32_t* decode_tokens() const { return decode_tokens_; }
  const int32_t* decode_sequences() const { return decode_sequences_; }
  int32_t n_decode() const { return n_decode_; }
  const PrefillTile* tiles() const { return tiles_; }
  int32_t n_tiles() const { return n_tiles_; }
  int64_t n_uses() const { return n_uses_; }  // of all layers
  /// Entries that travelled with the last upload.
  int64_t n_changes() const { return n_changes_; }

 private:
  template <typename T>
  T* place(int64_t count, const T** device);
  void take(int64_t bytes);
  void place_lists(const StepPlan& plan, int32_t prefill_least);
  void place_layer(const StepPlan& plan, const StepShape& shape, int32_t layer);
  void place_angle_rows(const StepPlan& plan);
  void place_changes(const StepPlan& plan);
  void send_changes(const TableChange* device, int64_t n);

  std::shared_ptr<DeviceRuntime> runtime_;
  BackendLimits limits_;
  DeviceArray staged_;  // the copy of host_
  DeviceArray tables_;  // [layers][max_sequences][max_entries of the layer]
  PinnedArray host_;
  uint64_t used_ = 0;               // bytes of host_ taken by this step
  uint64_t sent_ = 0;               // of them on their way
  std::vector<BlockEntry> mirror_;  // what tables_ holds
  std::vector<int64_t> first_;      // [n_layers] where a layer's tables begin
  std::vector<int64_t> held_;       // [n_layers, max_sequences] version of a table that tables_ has

  const int32_t* tokens_ = nullptr;
  const int32_t* angle_positions_ = nullptr;
  const int32_t* decode_tokens_ = nullptr;
  const int32_t* decode_sequences_ = nullptr;
  const PrefillTile* tiles_ = nullptr;
  int32_t n_tokens_ = 0, n_sequences_ = 0;
  int32_t n_decode_ = 0, n_tiles_ = 0;
  int64_t n_uses_ = 0, n_changes_ = 0;
  std::vector<LayerUpload> layers_;
  std::vector<AttentionSequence*> host_sequences_;  // [n_layers] in host_
  std::vector<int32_t> leaders_;  // [n_groups] the first layer of each group of angle rows, or -1
};

}  // namespace paddock::cuda
