#include "backend/cuda/step_upload.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/checked.h"
#include "core/fail.h"

namespace paddock::cuda {
namespace {

constexpr uint64_t kAlignment = 16;
/// Changed entries that travel at once; a step with more sends them in several turns.
constexpr int64_t kMostChanges = 32768;

int64_t all_entries(const BackendLimits& limits) {
  return std::accumulate(limits.step.max_entries.begin(), limits.step.max_entries.end(),
                         int64_t{0}) *
         limits.step.max_sequences;
}

int64_t most_changes(const BackendLimits& limits) {
  return std::min(kMostChanges, all_entries(limits));
}

/// Bytes of one step's arrays at most; every array may lose kAlignment to its place.
uint64_t staged_bytes(const BackendLimits& l) {
  const auto n_layers = static_cast<uint64_t>(l.step.max_entries.size());
  const auto tokens = static_cast<uint64_t>(l.step.max_tokens);
  const uint64_t lists = tokens * (3 * sizeof(int32_t) + sizeof(PrefillTile)) +
                         uint64_t(l.step.max_angle_rows) * 2 * sizeof(int32_t);
  // Tokens that nobody asked for have sequences of their own.
  const uint64_t sequences = std::max(tokens, uint64_t(l.step.max_sequences));
  const uint64_t layer = tokens * sizeof(KvDestination) +
                         sequences * (sizeof(AttentionSequence) + sizeof(int64_t)) + 4 * kAlignment;
  const uint64_t changes = uint64_t(most_changes(l)) * sizeof(TableChange);
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
      held_(limits.step.max_entries.size() * limits.step.max_sequences, -1),
      layers_(limits.step.max_entries.size()),
      host_sequences_(limits.step.max_entries.size()),
      leaders_(limits.step.max_entries.size()) {
  int64_t first = 0;
  for (const int64_t entries : limits.step.max_entries) {
    first_.push_back(first);
    first += entries * limits.step.max_sequences;
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
  take(count * static_cast<int64_t>(sizeof(T)));
  return host;
}

void StepUpload::take(int64_t bytes) {
  used_ += static_cast<uint64_t>(bytes);
  if (used_ > staged_.bytes()) {
    fail(ErrorCode::kInternal, "a step needs {} bytes of the {} staged", used_, staged_.bytes());
  }
}

/// Arrays whose sizes follow from the shape come first, so that steps of one shape have them at the
/// same addresses, which a recorded step has kept. Angle rows, of which there are more or fewer,
/// come after these: their beginning stays where it is, too.
void StepUpload::upload(const StepPlan& plan, const StepShape& shape) {
  used_ = sent_ = 0;
  n_uses_ = n_changes_ = 0;
  n_tokens_ = shape.n_tokens;
  const int32_t added = shape.n_tokens - plan.n_tokens();
  n_sequences_ = static_cast<int32_t>(plan.layers[0].sequences.size()) + added;
  int32_t* tokens = place(n_tokens_, &tokens_);
  std::fill(std::copy(plan.tokens.begin(), plan.tokens.end(), tokens), tokens + n_tokens_, 0);
  place_lists(plan, shape.prefill_least);
  for (size_t i = 0; i < layers_.size(); ++i) place_layer(plan, shape, static_cast<int32_t>(i));
  place_angle_rows(plan);
  std::copy(plan.angle_positions.begin(), plan.angle_positions.end(),
            place(static_cast<int64_t>(plan.angle_positions.size()), &angle_positions_));
  place_changes(plan);
}

/// The lists are the same for every layer: which tokens a sequence brings does not depend on it.
void StepUpload::place_lists(const StepPlan& plan, int32_t prefill_least) {
  const std::span<const SequenceView> views = plan.layers[0].sequences;
  int32_t* tokens = place(n_tokens_, &decode_tokens_);
  int32_t* sequences = place(n_tokens_, &decode_sequences_);
  PrefillTile* tiles = place(n_tokens_, &tiles_);
  n_decode_ = n_tiles_ = 0;
  for (size_t s = 0; s < views.size(); ++s) {
    const auto sequence = static_cast<int32_t>(s);
    if (views[s].n_tokens >= prefill_least) {
      for (int32_t i = 0; i < views[s].n_tokens; i += kPrefillTile) {
        tiles[n_tiles_++] = {sequence, i};
      }
      continue;
    }
    for (int32_t i = 0; i < views[s].n_tokens; ++i) {
      tokens[n_decode_] = views[s].first_token + i;
      sequences[n_decode_++] = sequence;
    }
  }
  // Those that see most come first, so that the last to end are short.
  std::sort(tiles, tiles + n_tiles_, [&](const PrefillTile& a, const PrefillTile& b) {
    const int32_t a_first = views[a.sequence].first_position + a.first;
    const int32_t b_first = views[b.sequence].first_position + b.first;
    return a_first != b_first ? a_first > b_first : a.sequence < b.sequence;
  });
  for (int32_t t = plan.n_tokens(); t < n_tokens_; ++t) {
    tokens[n_decode_] = t;
    sequences[n_decode_++] = static_cast<int32_t>(views.size()) + t - plan.n_tokens();
  }
}

void StepUpload::place_layer(const StepPlan& plan, const StepShape& shape, int32_t layer) {
  const LayerPlan& from = plan.layers[layer];
  LayerUpload& to = layers_[layer];
  const KvDestination nowhere{-1, 0};
  KvDestination* destinations = place(n_tokens_, &to.destinations);
  std::fill(std::copy(from.destinations.begin(), from.destinations.end(), destinations),
            destinations + n_tokens_, nowhere);
  AttentionSequence* sequences = place(n_sequences_, &to.sequences);
  host_sequences_[layer] = sequences;
  int64_t* uses_first = place(n_sequences_, &to.uses_first);
  to.entries = tables_.as<BlockEntry>() + first_[layer];
  to.max_entries =
      static_cast<int32_t>(std::min<int64_t>(shape.most_entries, limits_.step.max_entries[layer]));
  to.measured = false;
  int64_t first_mass = 0;
  for (const SequenceView& s : from.sequences) {
    const auto n_entries = static_cast<int32_t>(s.entries.size());
    *sequences++ = {s.queries(), static_cast<int32_t>(s.sequence * limits_.step.max_entries[layer]),
                    0,  // see place_angle_rows
                    0, s.uses != nullptr ? first_mass : -1};
    *uses_first++ = n_uses_;
    if (s.uses == nullptr) continue;
    first_mass += int64_t{s.n_tokens} * n_entries;
    n_uses_ += n_entries;
    to.measured = true;
  }
  for (int32_t t = plan.n_tokens(); t < n_tokens_; ++t) {  // they see nothing
    *sequences++ = {{t, 1, 0, 0, 0, {}}, 0, 0, 0, -1};
    *uses_first++ = 0;
  }
}

/// Layers that share a group of rotations share its rows.
void StepUpload::place_angle_rows(const StepPlan& plan) {
  const int32_t* device = nullptr;
  int32_t* rows = place<int32_t>(0, &device);
  int32_t n = 0;
  std::fill(leaders_.begin(), leaders_.end(), -1);
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const std::span<const SequenceView> views = plan.layers[layer].sequences;
    int32_t& leader = leaders_[plan.layers[layer].angle_group];
    const bool shared = leader >= 0;
    layers_[layer].angle_rows = device;
    for (size_t s = 0; s < views.size(); ++s) {
      int32_t& first = host_sequences_[layer][s].first_angle_row;
      if (shared) {
        first = host_sequences_[leader][s].first_angle_row;
        continue;
      }
      first = n;
      const int32_t count = views[s].n_rotations * views[s].n_tokens;
      std::copy_n(views[s].angle_rows, count, rows + n);
      n += count;
    }
    if (!shared) leader = static_cast<int32_t>(layer);
  }
  take(n * static_cast<int64_t>(sizeof(int32_t)));
}

/// Entries that differ from what the device's tables hold, and the copy of everything. Only
/// what the cache has touched since is looked at.
void StepUpload::place_changes(const StepPlan& plan) {
  const TableChange* device = nullptr;
  TableChange* changes = place<TableChange>(0, &device);
  int64_t n = 0;
  for (size_t layer = 0; layer < plan.layers.size(); ++layer) {
    for (const SequenceView& view : plan.layers[layer].sequences) {
      const int64_t at = first_[layer] + view.sequence * limits_.step.max_entries[layer];
      BlockEntry* held = mirror_.data() + at;
      int64_t& held_version = held_[layer * limits_.step.max_sequences + view.sequence];
      const auto first = static_cast<size_t>(view.changes->first_changed_since(held_version));
      held_version = view.changes->version();
      for (size_t e = first; e < view.entries.size(); ++e) {
        const BlockEntry& entry = view.entries[e];
        if (std::memcmp(&entry, held + e, sizeof(entry)) == 0) continue;
        held[e] = entry;
        changes[n++] = {entry, at + static_cast<int64_t>(e), 0};
        if (n < most_changes(limits_)) continue;
        send_changes(device, n);
        runtime_->synchronize();  // before the next ones take their place
        n = 0;
      }
    }
  }
  send_changes(device, n);
}

void StepUpload::send_changes(const TableChange* device, int64_t n) {
  n_changes_ += n;
  const auto end = static_cast<uint64_t>(reinterpret_cast<const uint8_t*>(device + n) -
                                         staged_.as<const uint8_t>());
  runtime_->copy_in(staged_.as<uint8_t>() + sent_, host_.as<uint8_t>() + sent_, end - sent_);
  sent_ = used_;
  if (n == 0) return;
  runtime_->check(change_tables({device, tables_.as<BlockEntry>(), n}, runtime_->stream()),
                  "change_tables");
}

}  // namespace paddock::cuda
