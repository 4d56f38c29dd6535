// Sequences with paged keys and values, tables with holes, doubled pages and rotations, for tests
// of the CUDA attention kernels: expected results in float64, and the CPU reference's.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "cuda/launch.h"
#include "half.h"
#include "support/simt/harness.h"

namespace paddock::cuda::test {

struct SceneShape {
  int32_t heads, kv_heads, head_dim, block;
  DType type;
  bool interleaved = false;
};
/// A sequence of `length` positions whose last `n_query` are in the batch.
struct SceneSequence {
  int32_t length;
  int32_t n_query = 1;
  Visibility visibility = {};
  int32_t hole_every = 0;  // every so many blocks one is missing
  int32_t rotations = 1;   // that take turns, three entries each; 2 or more with sinks
  bool doubled = false;    // pages are listed twice, once for each part
  bool measured = true;
};

struct Expected {
  std::vector<double> out, lse;            // [n_tokens, n_heads, head_dim], [n_tokens, n_heads]
  std::vector<double> out_room, lse_room;  // errors that float32 may make, per (token, head)
  std::vector<double> masses, mass_room;   // [all masses], in units of 2^-32
};

class AttentionScene {
 public:
  AttentionScene(const SceneShape& shape, const std::vector<SceneSequence>& sequences)
      : shape_(shape), geometry_{shape.kv_heads, shape.block, shape.head_dim, shape.type} {
    for (const SceneSequence& s : sequences) add(s);
    shuffle_pages();
    std::normal_distribution<float> normal;
    q_.resize(static_cast<size_t>(int64_t{n_tokens_} * shape.heads * shape.head_dim));
    for (float& x : q_) x = normal(random_);
    for (int32_t row = 0; row < kAngleRows; ++row) add_angle_row();
    fill_pool();
  }

  const SceneShape& shape() const { return shape_; }
  const PageGeometry& geometry() const { return geometry_; }
  int32_t n_tokens() const { return n_tokens_; }
  int32_t n_sequences() const { return static_cast<int32_t>(sequences_.size()); }
  int32_t max_entries() const { return max_entries_; }
  int32_t max_tokens() const { return max_tokens_; }
  int64_t n_masses() const { return n_masses_; }
  const std::vector<AttentionSequence>& sequences() const { return sequences_; }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape_.head_dim)); }

  /// `rounded`: of queries and weights that are rounded to the KV type, as tensor cores take them.
  Expected expected(bool rounded = false) const {
    Expected all;
    all.masses.assign(static_cast<size_t>(n_masses_), 0.0);
    all.mass_room.assign(static_cast<size_t>(n_masses_), 0.0);
    for (const AttentionSequence& s : sequences_) {
      for (int32_t i = 0; i < s.n_tokens; ++i) {
        for (int32_t h = 0; h < shape_.heads; ++h) expect(s, i, h, rounded, all);
      }
    }
    return all;
  }

  /// Takes entries from the tables that no query sees any more; returns how many.
  int32_t drop_passed() {
    std::vector<BlockEntry> left;
    for (AttentionSequence& s : sequences_) {
      const auto first = static_cast<int32_t>(left.size());
      for (int32_t i = s.first_entry; i < s.first_entry + s.n_entries; ++i) {
        const BlockEntry& e = entries_[i];
        if (!is_past(s.visibility, s.first_position, int64_t{e.first_position} + e.slot_begin,
                     e.slot_end - e.slot_begin)) {
          left.push_back(e);
        }
      }
      s.first_entry = first;
      s.n_entries = static_cast<int32_t>(left.size()) - first;
    }
    const auto dropped = static_cast<int32_t>(entries_.size() - left.size());
    entries_ = left;
    return dropped;
  }

  struct CpuResult {
    std::vector<float> out;
    std::vector<int64_t> masses;
    std::vector<BlockUse> uses;  // sequence after sequence
  };
  /// What the CPU's reference kernels give. Every query must see something.
  CpuResult cpu() const {
    CpuResult result;
    result.out.resize(q_.size());
    result.masses.resize(static_cast<size_t>(n_masses_));
    std::vector<cpu::AttentionSequence> sequences;
    for (const AttentionSequence& s : sequences_) {
      sequences.push_back({s, &entries_[s.first_entry], &angle_rows_[s.first_angle_row],
                           s.first_mass < 0 ? nullptr : &result.masses[s.first_mass]});
    }
    const auto& k = cpu::kernels(cpu::Isa::kPortable);
    const auto parts = cpu::attention_parts(max_entries_, shape_.block);
    const cpu::AttentionArgs args{q_.data(),
                                  result.out.data(),
                                  shape_.heads,
                                  scale(),
                                  angles_.data(),
                                  shape_.interleaved,
                                  {cpu_pool_.data(), geometry_},
                                  sequences.data(),
                                  n_sequences(),
                                  static_cast<int32_t>(parts)};
    std::vector<float> scratch(static_cast<size_t>(
        k.attention_scratch(shape_.head_dim, shape_.heads / shape_.kv_heads, parts)));
    k.attention_reference(args, 0, k.attention_tasks(args), scratch.data());
    for (const cpu::AttentionSequence& s : sequences) {
      if (s.mass == nullptr) continue;
      std::vector<BlockUse> uses(static_cast<size_t>(s.n_entries));
      cpu::add_up_uses(s, shape_.heads, uses.data());
      result.uses.insert(result.uses.end(), uses.begin(), uses.end());
    }
    return result;
  }

  /// The scene in device memory, and what kernels write.
  struct Device {
    explicit Device(const AttentionScene& s)
        : q(s.q_, "q"),
          angles(s.angles_, "angles"),
          pool(s.pool_, "pool"),
          sequences(s.sequences_, "sequences"),
          entries(s.entries_, "entries"),
          angle_rows(s.angle_rows_, "angle_rows"),
          out(s.q_.size(), "out"),
          lse(static_cast<size_t>(s.n_tokens_ * s.shape_.heads), "lse"),
          masses(static_cast<size_t>(s.n_masses_), "masses") {
      q.freeze();
      angles.freeze();
      pool.freeze();
      sequences.freeze();
      entries.freeze();
      angle_rows.freeze();
      args = {q.data(),
              out.data(),
              s.shape_.heads,
              s.scale(),
              angles.data(),
              s.shape_.interleaved,
              {pool.data(), s.geometry_},
              sequences.data(),
              entries.data(),
              angle_rows.data(),
              lse.data(),
              masses.data(),
              nullptr,
              false,
              nullptr};
    }
    simt::DeviceBuffer<float> q, angles;
    simt::DeviceBuffer<uint8_t> pool;
    simt::DeviceBuffer<AttentionSequence> sequences;
    simt::DeviceBuffer<BlockEntry> entries;
    simt::DeviceBuffer<int32_t> angle_rows;
    simt::DeviceBuffer<float> out, lse;
    simt::DeviceBuffer<int64_t> masses;
    AttentionArgs args;
  };

 private:
  static constexpr int32_t kAngleRows = 7;

  void add(const SceneSequence& spec) {
    AttentionSequence s{};
    s.first_token = n_tokens_;
    s.n_tokens = spec.n_query;
    s.first_position = spec.length - spec.n_query;
    s.first_entry = static_cast<int32_t>(entries_.size());
    s.visibility = spec.visibility;
    for (int32_t first = 0; first < spec.length; first += shape_.block) {
      const int32_t block = first / shape_.block;
      if (spec.hole_every > 0 && block % spec.hole_every == spec.hole_every - 1) continue;
      const int32_t end = std::min(spec.length - first, shape_.block);
      int32_t cut = std::clamp(spec.visibility.sinks - first, 0, end);
      if (cut == 0 && spec.doubled) cut = end / 2;
      const int32_t page = n_pages_++;
      if (cut > 0) list(page, first, 0, cut, s, spec.rotations);
      if (cut < end) list(page, first, cut, end, s, spec.rotations);
    }
    s.n_entries = static_cast<int32_t>(entries_.size()) - s.first_entry;
    s.n_rotations = spec.rotations;
    s.first_angle_row = static_cast<int32_t>(angle_rows_.size());
    for (int32_t r = 0; r < spec.rotations * s.n_tokens; ++r) {
      angle_rows_.push_back(static_cast<int32_t>(random_() % kAngleRows));
    }
    s.first_mass = -1;
    if (spec.measured) {
      s.first_mass = n_masses_;
      n_masses_ += int64_t{s.n_tokens} * s.n_entries;
    }
    n_tokens_ += s.n_tokens;
    max_entries_ = std::max(max_entries_, s.n_entries);
    max_tokens_ = std::max(max_tokens_, s.n_tokens);
    sequences_.push_back(s);
  }
  void list(int32_t page, int32_t first, int32_t begin, int32_t end, const AttentionSequence& s,
            int32_t rotations) {
    const int32_t n = static_cast<int32_t>(entries_.size()) - s.first_entry;
    int32_t rotation = n / 3 % rotations;
    if (s.visibility.sinks > 0) {  // the CPU's kernels count on another rotation for sinks
      rotation = first + begin < s.visibility.sinks ? 0 : 1 + n / 3 % (rotations - 1);
    }
    entries_.push_back(
        {page, first, static_cast<uint16_t>(begin), static_cast<uint16_t>(end), rotation});
  }
  void shuffle_pages() {
    std::vector<int32_t> order(static_cast<size_t>(n_pages_));
    for (int32_t i = 0; i < n_pages_; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random_);
    for (BlockEntry& e : entries_) e.page = order[e.page];
  }
  void add_angle_row() {
    std::uniform_real_distribution<double> turn(0, 6.28);
    std::vector<double> angles(static_cast<size_t>(shape_.head_dim / 2));
    for (double& a : angles) a = turn(random_);
    for (const double a : angles) angles_.push_back(static_cast<float>(std::cos(a)));
    for (const double a : angles) angles_.push_back(static_cast<float>(std::sin(a)));
  }

  /// Slots that some entry lists get numbers; all others stay NaN.
  void fill_pool() {
    const auto bytes = static_cast<size_t>(n_pages_ * geometry_.page_bytes());
    pool_.assign(bytes, 0xFF);
    cpu_pool_.assign(bytes, 0xFF);
    const KvView<KeyOrder::kBySlot, uint8_t> on_device(pool_.data(), geometry_);
    const KvView<KeyOrder::kByDim, uint8_t> on_cpu(cpu_pool_.data(), geometry_);
    std::normal_distribution<float> normal;
    for (const BlockEntry& e : entries_) {
      for (int32_t h = 0; h < shape_.kv_heads; ++h) {
        for (int32_t slot = e.slot_begin; slot < e.slot_end; ++slot) {
          for (int32_t d = 0; d < shape_.head_dim; ++d) {
            const float k = normal(random_);
            const float v = normal(random_);
            put(on_device.k(e.page, h, slot, d), k);
            put(on_cpu.k(e.page, h, slot, d), k);
            put(on_device.v(e.page, h, slot, d), v);
            put(on_cpu.v(e.page, h, slot, d), v);
          }
        }
      }
    }
  }
  void put(uint8_t* to, float x) const {
    if (shape_.type == DType::kF32) {
      std::memcpy(to, &x, 4);
      return;
    }
    const uint16_t h = shape_.type == DType::kF16 ? f32_to_f16(x) : f32_to_bf16(x);
    std::memcpy(to, &h, 2);
  }
  KvView<KeyOrder::kBySlot> pages() const { return {pool_.data(), geometry_}; }
  double get(const uint8_t* from) const {
    if (shape_.type == DType::kF32) {
      float x = 0;
      std::memcpy(&x, from, 4);
      return x;
    }
    uint16_t h = 0;
    std::memcpy(&h, from, 2);
    return shape_.type == DType::kF16 ? f16_to_f32(h) : bf16_to_f32(h);
  }

  double round(float x) const {
    return shape_.type == DType::kF16 ? f16_to_f32(f32_to_f16(x)) : bf16_to_f32(f32_to_bf16(x));
  }
  std::vector<double> rotated(const float* x, int32_t row, bool rounded) const {
    const int32_t half = shape_.head_dim / 2;
    const float* angle = &angles_[int64_t{row} * shape_.head_dim];
    std::vector<double> out(static_cast<size_t>(shape_.head_dim));
    for (int32_t i = 0; i < half; ++i) {
      const int32_t a = shape_.interleaved ? 2 * i : i;
      const int32_t b = shape_.interleaved ? 2 * i + 1 : i + half;
      if (rounded) {
        out[a] = round(std::fma(x[a], angle[i], -(x[b] * angle[half + i])));
        out[b] = round(std::fma(x[a], angle[half + i], x[b] * angle[i]));
        continue;
      }
      out[a] = double{x[a]} * angle[i] - double{x[b]} * angle[half + i];
      out[b] = double{x[a]} * angle[half + i] + double{x[b]} * angle[i];
    }
    return out;
  }

  struct Seen {
    int32_t entry, page, slot;
    double score;
  };

  /// One row of every result. The rooms: a dot product of n terms of absolute sum s errs by less
  /// than (n + 8) * 2^-24 * s, rotation and scale included; 2^-21 of it all is what exponents of
  /// two and the sums of a softmax of less than a thousand terms, in four parts, may add. Rounded
  /// weights err by half a unit in their last place, below 1 where they are subnormal.
  void expect(const AttentionSequence& s, int32_t i, int32_t h, bool rounded, Expected& all) const {
    const int32_t d = shape_.head_dim;
    const int32_t kv_head = h / (shape_.heads / shape_.kv_heads);
    const int32_t t = s.first_position + i;
    const double epsilon = 0x1p-24;
    std::vector<Seen> seen;
    double score_room = 0;
    double top = -INFINITY;
    double largest_value = 0;
    for (int32_t e = 0; e < s.n_entries; ++e) {
      const BlockEntry& entry = entries_[s.first_entry + e];
      const int32_t row = angle_rows_[s.first_angle_row + entry.rotation * s.n_tokens + i];
      const auto q =
          rotated(&q_[(int64_t{s.first_token + i} * shape_.heads + h) * d], row, rounded);
      for (int32_t slot = entry.slot_begin; slot < entry.slot_end; ++slot) {
        const int32_t p = entry.first_position + slot;
        const bool sink = p < s.visibility.sinks;
        if (p > t || (!sink && int64_t{t} - p >= s.visibility.window)) continue;
        double dot = 0;
        double size = 0;
        for (int32_t j = 0; j < d; ++j) {
          const double term = q[j] * get(pages().k(entry.page, kv_head, slot, j));
          dot += term;
          size += std::abs(term);
          const double v = get(pages().v(entry.page, kv_head, slot, j));
          largest_value = std::max(largest_value, std::abs(v));
        }
        dot *= double{scale()};
        score_room = std::max(score_room, (d + 8) * epsilon * size * scale());
        top = std::max(top, dot);
        seen.push_back({e, entry.page, slot, dot});
      }
    }
    double total = 0;
    for (Seen& x : seen) total += x.score = std::exp(x.score - top);
    double largest_size = 0;
    for (int32_t j = 0; j < d; ++j) {
      double sum = 0;
      double size = 0;
      for (const Seen& x : seen) {
        const double v = get(pages().v(x.page, kv_head, x.slot, j));
        sum += x.score * v;
        size += x.score * std::abs(v);
      }
      if (!seen.empty()) largest_size = std::max(largest_size, size / total);
      all.out.push_back(seen.empty() ? 0 : sum / total);
    }
    const double lse = seen.empty() ? -INFINITY : top + std::log(total);
    all.lse.push_back(lse);
    const double unit = !rounded ? 0 : shape_.type == DType::kF16 ? 0x1p-11 : 0x1p-8;
    const double smallest = rounded && shape_.type == DType::kF16 ? 0x1p-25 : 0;
    all.out_room.push_back((2 * score_room + 0x1p-20) * largest_value + unit * largest_size +
                           smallest * static_cast<double>(seen.size()) * largest_value);
    const double lse_room = score_room + 0x1p-20 + 8 * epsilon * (seen.empty() ? 0 : std::abs(lse));
    all.lse_room.push_back(lse_room);
    if (s.first_mass < 0) return;
    for (const Seen& x : seen) {
      const auto at = static_cast<size_t>(s.first_mass + int64_t{i} * s.n_entries + x.entry);
      const double mass = x.score / total * kMassUnit;
      all.masses[at] += mass;
      all.mass_room[at] += 1 + mass * (score_room + lse_room + 0x1p-20);
    }
  }

  SceneShape shape_;
  PageGeometry geometry_;
  std::mt19937 random_{23};
  int32_t n_tokens_ = 0, max_entries_ = 0, max_tokens_ = 0, n_pages_ = 0;
  int64_t n_masses_ = 0;
  std::vector<float> q_, angles_;
  std::vector<uint8_t> pool_, cpu_pool_;
  std::vector<AttentionSequence> sequences_;
  std::vector<BlockEntry> entries_;
  std::vector<int32_t> angle_rows_;
};

}  // namespace paddock::cuda::test
