// Sequences over pages in random order, as a running engine has them, in device memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "gpu/scene.h"

namespace paddock::bench {

using cuda::AttentionArgs;
using cuda::AttentionSequence;
using simt::DeviceBuffer;

/// Queries and keys are uniform from -1 to 1: with this, scores spread as a trained model's do.
inline constexpr double kSharpness = 8;

/// Tables of all sets and what of them queries see.
struct Tables {
  Tables(const AttentionShape& s, int n_sets) : shape(s) {
    for (int i = 0; i < n_sets * s.sequences; ++i) add(i % s.sequences);
    std::vector<int32_t> order(static_cast<size_t>(n_pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    for (BlockEntry& e : entries) e.page = order[static_cast<size_t>(e.page)];
  }

  int32_t n_tokens() const { return shape.sequences * shape.queries; }
  int32_t rotations() const { return shape.visibility.sinks > 0 ? 2 : 1; }
  int32_t set_entries() const { return shape.sequences * sequences[0].n_entries; }

  /// (query, slot) pairs of one set, for one head.
  double pairs() const {
    const AttentionSequence& s = sequences[0];
    int64_t n = 0;
    for (int32_t i = 0; i < s.n_tokens; ++i) {
      for (int32_t e = 0; e < s.n_entries; ++e) {
        const SlotRange live =
            live_slots(entries[static_cast<size_t>(e)], s.visibility, s.first_position + i);
        n += live.end - live.begin;
      }
    }
    return static_cast<double>(n) * shape.sequences;
  }

  AttentionShape shape;
  std::vector<BlockEntry> entries;           // set after set, sequence after sequence
  std::vector<AttentionSequence> sequences;  // likewise; first_entry counts from the set's first
  int32_t n_pages = 0;

 private:
  void add(int32_t number) {
    const auto before = static_cast<int32_t>(entries.size());
    AttentionSequence s{};
    s.first_token = number * shape.queries;
    s.n_tokens = shape.queries;
    s.first_position = shape.context - shape.queries;
    s.visibility = shape.visibility;
    s.first_angle_row = number * shape.queries * rotations();
    s.n_rotations = rotations();
    for (int32_t first = 0; first < shape.context; first += shape.block) {
      const int32_t end = std::min(shape.block, shape.context - first);
      const int32_t cut = std::clamp(shape.visibility.sinks - first, 0, end);
      const bool past =
          cut == end || is_past(shape.visibility, s.first_position, first + cut, end - cut);
      if (cut == 0 && past) continue;
      const int32_t page = n_pages++;
      if (cut > 0) entries.push_back({page, first, 0, static_cast<uint16_t>(cut), 0});
      if (past) continue;
      entries.push_back(
          {page, first, static_cast<uint16_t>(cut), static_cast<uint16_t>(end), rotations() - 1});
    }
    s.n_entries = static_cast<int32_t>(entries.size()) - before;
    s.first_entry = number * s.n_entries;
    s.first_mass = int64_t{number} * s.n_tokens * s.n_entries;
    sequences.push_back(s);
  }
};

/// Everything in device memory, and the launches.
struct Attention {
  Attention(const AttentionShape& s, int n_sets)
      : shape(s),
        geometry{s.kv_heads, s.block, s.head_dim, s.type},
        tables(s, n_sets),
        pool(static_cast<size_t>(tables.n_pages * geometry.page_bytes()), "pool"),
        q(static_cast<size_t>(int64_t{tables.n_tokens()} * s.heads * s.head_dim), "q"),
        out(q.size(), "out"),
        lse(static_cast<size_t>(tables.n_tokens() * s.heads), "lse"),
        masses(static_cast<size_t>(int64_t{s.queries} * tables.set_entries()), "masses"),
        angles(angle_values(tables.n_tokens() * tables.rotations()), "angles"),
        entries(tables.entries, "entries"),
        sequences(tables.sequences, "sequences"),
        angle_rows(counting(tables.n_tokens() * tables.rotations()), "angle rows"),
        decode_tokens(counting(tables.n_tokens()), "tokens"),
        decode_sequences(sequence_of_tokens(), "sequences of tokens"),
        tiles(tile_list(), "tiles"),
        workspace(workspace_floats(), "workspace"),
        arrivals(std::vector<uint32_t>(static_cast<size_t>(tables.n_tokens() * s.heads)),
                 "arrivals") {
    Pattern::of(s.type).fill(pool);
    Pattern::of(DType::kF32).fill(q);
    pool.freeze();
    q.freeze();
    entries.freeze();
    sequences.freeze();
  }

  float scale() const {
    return static_cast<float>(kSharpness / std::sqrt(static_cast<double>(shape.head_dim)));
  }

  KvView<KeyOrder::kBySlot> view() const { return {pool.data(), geometry}; }
  AttentionArgs args(int set, bool measured) const {
    return {q.data(),
            out.data(),
            shape.heads,
            scale(),
            angles.data(),
            false,
            view(),
            sequences.data() + int64_t{set} * shape.sequences,
            entries.data() + int64_t{set} * tables.set_entries(),
            angle_rows.data(),
            measured ? lse.data() : nullptr,
            measured ? masses.data() : nullptr,
            workspace.data(),
            true,
            arrivals.data()};
  }

  int decode(int set, bool measured, cuda::Stream stream) const {
    const bool alone = shape.queries == 1;  // as in decode steps
    return cuda::decode_attention(
        args(set, measured),
        {alone ? nullptr : decode_tokens.data(), alone ? nullptr : decode_sequences.data(),
         tables.n_tokens(), tables.sequences[0].n_entries,
         cuda::kDecodeBlocksEach * simt::multiprocessors()},
        stream);
  }
  int prefill(int set, bool measured, cuda::Stream stream) const {
    return cuda::prefill_attention(args(set, measured),
                                   {tiles.data(), static_cast<int32_t>(tiles.size())}, stream);
  }
  int mass(int set, cuda::Stream stream) const {
    return cuda::attention_mass(args(set, true), shape.sequences, shape.queries,
                                tables.sequences[0].n_entries, stream);
  }

  /// Of an angle row, in radians.
  static double angle(int64_t row, int32_t i) {
    return std::fmod(0.37 * static_cast<double>(row) + 1.1 * i, 6.28);
  }

  AttentionShape shape;
  PageGeometry geometry;
  Tables tables;
  DeviceBuffer<uint8_t> pool;
  DeviceBuffer<float> q, out, lse;
  DeviceBuffer<int64_t> masses;
  DeviceBuffer<float> angles;
  DeviceBuffer<BlockEntry> entries;
  DeviceBuffer<AttentionSequence> sequences;
  DeviceBuffer<int32_t> angle_rows, decode_tokens, decode_sequences;
  DeviceBuffer<cuda::PrefillTile> tiles;
  DeviceBuffer<float> workspace;
  DeviceBuffer<uint32_t> arrivals;

 private:
  static std::vector<int32_t> counting(int32_t n) {
    std::vector<int32_t> all(static_cast<size_t>(n));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  std::vector<float> angle_values(int32_t n_rows) const {
    std::vector<float> all;
    for (int32_t row = 0; row < n_rows; ++row) {
      for (int32_t i = 0; i < shape.head_dim / 2; ++i) {
        all.push_back(static_cast<float>(std::cos(angle(row, i))));
      }
      for (int32_t i = 0; i < shape.head_dim / 2; ++i) {
        all.push_back(static_cast<float>(std::sin(angle(row, i))));
      }
    }
    return all;
  }
  std::vector<int32_t> sequence_of_tokens() const {
    std::vector<int32_t> all = counting(tables.n_tokens());
    for (int32_t& token : all) token /= shape.queries;
    return all;
  }
  /// Those that see most first.
  std::vector<cuda::PrefillTile> tile_list() const {
    std::vector<cuda::PrefillTile> all;
    for (int32_t number = 0; number < shape.sequences; ++number) {
      for (int32_t i = 0; i < shape.queries; i += cuda::kPrefillTile) all.push_back({number, i});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    return all;
  }
  size_t workspace_floats() const {
    const int64_t n = cuda::decode_workspace_floats(shape.heads, geometry, tables.n_tokens(),
                                                    tables.sequences[0].n_entries);
    return static_cast<size_t>(std::max<int64_t>(n, 1));
  }
};

}  // namespace paddock::bench
