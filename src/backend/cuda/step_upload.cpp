#include "backend/cuda/step_upload.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/checked.h"

namespace paddock::cuda {
namespace {

constexpr uint64_t kAlignment = 16;

int64_t all_entries(const BackendLimits& limits) {
  return std::accumulate(limits.max_entries.begin(), limits.max_entries.end(), int64_t{0}) *
         limits.max_sequences;
}

/// Bytes of one step's arrays at most; every array may lose kAlignment to its place.
uint64_t staged_bytes(const BackendLimits& l) {
  const auto n_layers = static_cast<uint64_t>(l.max_entries.size());
  const auto tokens = static_cast<uint64_t>(l.max_tokens);
  const auto sequences = static_cast<uint64_t>(l.max_sequences);
  const uint64_t lists = tokens * (3 * sizeof(int32_t) + sizeof(PrefillTile)) +
                         uint64_t(l.max_angle_rows) * 2 * sizeof(int32_t);
  const uint64_t layer = tokens * sizeof(KvDestination) +
                         sequences * (sizeof(AttentionSequence) + sizeof(int64_t)) + 4 * kAlignment;
  const uint64_t changes = uint64_t(all_entries(l)) * sizeof(TableChange);
  return lists + n_layers * layer + changes + 8 * kAlignment;
}

}  // namespace

StepUpload::StepUpload(std::shared_ptr<DeviceRuntime> runtime, const BackendLimits& limits)
    : runtime_(std::move(runtime)),
      limits_(limits),
      staged_(runtime_, staged_bytes(limits), "what a step needs"),
      tables_(runtime_, uint64_t(all_entries(limits)) * sizeof(BlockEntry), "block tables"),
      host_(runtime_, staged_bytes(limits), "what a step needs"),
      // No table has a page -1, so that every entry is a change at first.
      mirror_(all_entries(limits), BlockEntry{-1, 0, 0, 0, 0}),
      layers_(limits.max_entries.size()) {
  int64_t first = 0;
  for (const int64_t entries : limits.max_entries) {
    first_.push_back(first);
    first += entries * limits.max_sequences;
  }
}

uint64_t StepUpload::device_bytes(const BackendLimits& limits) {
  return staged_bytes(limits) + uint64_t(all_entries(limits)) * sizeof(BlockEntry);
}

/// Room for `count` elements: where to write them, and where the device will find them.
template <typename T>
T* StepUpload::place(int64_t count, const T** device) {
  used_ = round_up(used_, kAlignment);
  T* host = reinterpret_cast<T*>(host_.as<uint8_t>() + used_);
  *device = reinterpret_cast<const T*>(staged_.as<uint8_t>() + used_);
  used_ += static_cast<uint64_t>(count) * sizeof(T);
  return host;
}

void StepUpload::upload(const StepPlan& plan, int32_t prefill_least) {
  used_ = 0;
  n_uses_ = 0;
  std::copy(plan.tokens.begin(), plan.tokens.end(), place(plan.n_tokens(), &tokens_));
  std::copy(plan.angle_positions.begin(), plan.angle_positions.end(),
            place(static_cast<int64_t>(plan.angle_positions.size()), &angle_positions_));
  place_lists(plan, prefill_least);
  for (size_t i = 0; i < plan.layers.size(); ++i) place_layer(plan, static_cast<int32_t>(i));
  place_changes(plan);
}

/// The lists are the same for every layer: which tokens a sequence brings does not depend on it.
void StepUpload::place_lists(const StepPlan& plan, int32_t prefill_least) {
  const std::span<const SequenceView> views = plan.layers[0].sequences;
  int32_t* tokens = place(plan.n_tokens(), &decode_tokens_);
  int32_t* sequences = place(plan.n_tokens(), &decode_sequences_);
  PrefillTile* tiles = place(plan.n_tokens(), &tiles_);
  n_decode_ = n_tiles_ = 0;
  for (size_t s = 0; s < views.size(); ++s) {
    const auto sequence = static_cast<int32_t>(s);
    if (views[s].n_tokens >= prefill_least) {
      for (int32_t i = 0; i < views[s].n_tokens; i += kPrefillTile)
        tiles[n_tiles_++] = {sequence, i};
      continue;
    }
    for (int32_t i = 0; i < views[s].n_tokens; ++i) {
      tokens[n_decode_] = views[s].first_token + i;
      sequences[n_decode_++] = sequence;
    }
  }
}

void StepUpload::place_layer(const StepPlan& plan, int32_t layer) {
  const LayerPlan& from = plan.layers[layer];
  const auto n_sequences = static_cast<int64_t>(from.sequences.size());
  LayerUpload& to = layers_[layer];
  std::copy(from.destinations.begin(), from.destinations.end(),
            place(plan.n_tokens(), &to.destinations));
  AttentionSequence* sequences = place(n_sequences, &to.sequences);
  int64_t* uses_first = place(n_sequences, &to.uses_first);
  to.entries = tables_.as<BlockEntry>() + first_[layer];
  to.max_entries = 0;
  to.measured = false;

  // Layers that share a group of rotations share its rows.
  const std::span<const SequenceView> before =
      layer > 0 ? plan.layers[layer - 1].sequences : std::span<const SequenceView>();
  const bool shared = !before.empty() && before[0].angle_rows == from.sequences[0].angle_rows;
  int32_t* rows = nullptr;
  if (shared) {
    to.angle_rows = layers_[layer - 1].angle_rows;
  } else {
    int64_t n_rows = 0;
    for (const SequenceView& s : from.sequences) n_rows += int64_t{s.n_rotations} * s.n_tokens;
    rows = place(n_rows, &to.angle_rows);
  }
  int32_t first_row = 0;
  int64_t first_mass = 0;
  for (int64_t i = 0; i < n_sequences; ++i) {
    const SequenceView& s = from.sequences[i];
    const auto n_entries = static_cast<int32_t>(s.entries.size());
    const int32_t n_rows = s.n_rotations * s.n_tokens;
    if (rows != nullptr) std::copy_n(s.angle_rows, n_rows, rows + first_row);
    sequences[i] = {s.first_token,
                    s.n_tokens,
                    s.first_position,
                    static_cast<int32_t>(i * limits_.max_entries[layer]),
                    n_entries,
                    first_row,
                    s.n_rotations,
                    s.visibility,
                    0,
                    s.uses != nullptr ? first_mass : -1};
    uses_first[i] = n_uses_;
    if (s.uses != nullptr) {
      first_mass += int64_t{s.n_tokens} * n_entries;
      n_uses_ += n_entries;
      to.measured = true;
    }
    first_row += n_rows;
    to.max_entries = std::max(to.max_entries, n_entries);
  }
}

/// Entries that differ from what the device's tables hold, and the copy of everything.
void StepUpload::place_changes(const StepPlan& plan) {
  const TableChange* device = nullptr;
  TableChange* changes = place<TableChange>(0, &device);
  int64_t n = 0;
  for (size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const std::span<const SequenceView> views = plan.layers[layer].sequences;
    for (size_t s = 0; s < views.size(); ++s) {
      const auto at = first_[layer] + static_cast<int64_t>(s) * limits_.max_entries[layer];
      BlockEntry* held = mirror_.data() + at;
      for (size_t e = 0; e < views[s].entries.size(); ++e) {
        const BlockEntry& entry = views[s].entries[e];
        if (std::memcmp(&entry, held + e, sizeof(entry)) == 0) continue;
        held[e] = entry;
        changes[n++] = {entry, at + static_cast<int64_t>(e), 0};
      }
    }
  }
  used_ += static_cast<uint64_t>(n) * sizeof(TableChange);
  runtime_->copy_in(staged_.as<uint8_t>(), host_.as<uint8_t>(), used_);
  if (n > 0) {
    runtime_->check(change_tables({device, tables_.as<BlockEntry>(), n}, runtime_->stream()),
                    "change_tables");
  }
}

}  // namespace paddock::cuda
