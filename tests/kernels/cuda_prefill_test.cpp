// Prefill attention against float64 loops: one that rounds queries and weights where the kernel
// does, with room for float32 sums alone, and one that rounds nothing. Slots that no query of a
// sequence sees are unwritten, so that touching them is reported.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "cpu/kernels.h"
#include "cuda/launch.h"
#include "half.h"
#include "support/simt/harness.h"

namespace paddock::cuda {
namespace {

using simt::DeviceBuffer;

constexpr double kUnit = 0x1p-24;  // of float32: half a unit in the last place of one

struct Shape {
  int32_t heads, kv_heads, head_dim, block;
  DType type;
  bool interleaved;
};

struct Sequence {
  int32_t first_position;
  int32_t n_tokens;
  std::vector<BlockEntry> entries;
  std::vector<Rotation> rotations;
  Visibility visibility;
};

/// Pages of blocks [0, length), in an order that is not theirs; some are left out.
Sequence whole_table(int32_t length, int32_t n_tokens, int32_t block, Visibility visibility) {
  Sequence s{length - n_tokens, n_tokens, {}, {{}}, visibility};
  const bool streaming = visibility.sinks > 0 && visibility.window != INT32_MAX;
  if (streaming) s.rotations = {{0, visibility.sinks + visibility.window - 1}, {}};
  const int32_t pages = (length + block - 1) / block;
  for (int32_t b = 0; b < pages; ++b) {
    const int32_t page = pages - 1 - b;
    const int32_t end = std::min(length - b * block, block);
    const int32_t cut = streaming ? std::clamp(visibility.sinks - b * block, 0, end) : 0;
    if (cut > 0) s.entries.push_back({page, b * block, 0, static_cast<uint16_t>(cut), 0});
    if (cut < end) {
      s.entries.push_back({page, b * block, static_cast<uint16_t>(cut), static_cast<uint16_t>(end),
                           streaming ? 1 : 0});
    }
  }
  return s;
}

struct Output {
  std::vector<float> out, lse;
};

/// What the kernel should give for one query and head, and how far it may be off.
struct Expected {
  std::vector<double> rounded, near;  // head_dim each
  std::vector<double> exact, far;
  double lse, lse_near;
};

class Scene {
 public:
  Scene(const Shape& shape, std::vector<Sequence> sequences, uint32_t seed = 1)
      : shape_(shape), sequences_(std::move(sequences)), random_(seed) {
    geometry_ = {shape.kv_heads, shape.block, shape.head_dim, shape.type};
    scale_ = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
    int32_t pages = 1;
    int32_t positions = 1;
    for (const Sequence& s : sequences_) {
      for (const BlockEntry& e : s.entries) pages = std::max(pages, e.page + 1);
      positions = std::max(positions, s.first_position + s.n_tokens);
      n_tokens_ += s.n_tokens;
    }
    fill(q_, int64_t{n_tokens_} * shape.heads * shape.head_dim);
    make_angles(positions);
    make_pool(pages);
  }

  /// Attention of tokens [first, first + n) of each sequence (all of them by default) that lie in
  /// it.
  Output run(bool with_lse = true, int32_t first = 0, int32_t n = INT32_MAX) {
    std::vector<AttentionSequence> sequences;
    std::vector<BlockEntry> entries;
    std::vector<int32_t> rows;
    std::vector<PrefillTile> tiles;
    std::vector<float> q;
    int32_t n_tokens = 0;
    const int64_t row = int64_t{shape_.heads} * shape_.head_dim;
    int32_t at = 0;
    for (const Sequence& s : sequences_) {
      const int32_t begin = std::min(first, s.n_tokens);
      const int32_t count = std::min(n, s.n_tokens - begin);
      for (int32_t t = 0; t < count; t += kPrefillTile) {
        tiles.push_back({static_cast<int32_t>(sequences.size()), t});
      }
      sequences.push_back(
          {{n_tokens, count, s.first_position + begin, static_cast<int32_t>(s.entries.size()),
            static_cast<int32_t>(s.rotations.size()), s.visibility},
           static_cast<int32_t>(entries.size()),
           static_cast<int32_t>(rows.size()),
           0,
           -1});
      entries.insert(entries.end(), s.entries.begin(), s.entries.end());
      for (const Rotation& r : s.rotations) {
        for (int32_t i = 0; i < count; ++i) {
          rows.push_back(query_position(r, s.first_position + begin + i));
        }
      }
      q.insert(q.end(), q_.begin() + (at + begin) * row, q_.begin() + (at + begin + count) * row);
      n_tokens += count;
      at += s.n_tokens;
    }
    entries.push_back({});  // so that the buffer holds something
    DeviceBuffer<AttentionSequence> device_sequences(sequences, "sequences");
    DeviceBuffer<BlockEntry> device_entries(
        std::span<const BlockEntry>(entries.data(), std::max<size_t>(1, entries.size() - 1)),
        "entries");
    DeviceBuffer<int32_t> device_rows(rows, "angle_rows");
    DeviceBuffer<PrefillTile> device_tiles(tiles, "tiles");
    DeviceBuffer<float> device_q(q, "q");
    DeviceBuffer<float> device_angles(angles_, "angles");
    DeviceBuffer<float> out(q.size(), "out");
    DeviceBuffer<float> lse(static_cast<size_t>(n_tokens * shape_.heads), "lse");
    device_sequences.freeze();
    device_entries.freeze();
    device_rows.freeze();
    device_tiles.freeze();
    device_q.freeze();
    device_angles.freeze();
    AttentionArgs args{};
    args.q = device_q.data();
    args.out = out.data();
    args.n_heads = shape_.heads;
    args.scale = scale_;
    args.angles = device_angles.data();
    args.interleaved = shape_.interleaved;
    args.kv = {pool_->data(), geometry_};
    args.sequences = device_sequences.data();
    args.entries = device_entries.data();
    args.angle_rows = device_rows.data();
    args.lse = with_lse ? lse.data() : nullptr;
    const int error =
        prefill_attention(args, {device_tiles.data(), static_cast<int32_t>(tiles.size())}, nullptr);
    if (error != 0) return {};
    return {out.download(), with_lse ? lse.download() : std::vector<float>()};
  }

  /// True if every element is as near to both loops as it must be; says where it is not.
  bool check(const Output& got) const {
    return got.lse.size() == q_.size() / shape_.head_dim && check(got, true);
  }
  /// ... or, of a kernel that rounds neither queries nor weights, to the exact one only.
  bool check_exact(const std::vector<float>& out) const { return check({out, {}}, false); }
  bool is_right() { return check(run()); }
  const std::string& complaint() const { return complaint_; }

  /// The same by the CPU's reference kernel, for the first sequence.
  std::vector<float> on_cpu() const {
    const Sequence& s = sequences_[0];
    std::vector<uint16_t> pool(pool_bits_.size());
    const KvView<KeyOrder::kByDim, uint8_t> to(reinterpret_cast<uint8_t*>(pool.data()), geometry_);
    const auto pages = static_cast<int64_t>(pool.size() * 2) / geometry_.page_bytes();
    for (int64_t page = 0; page < pages; ++page) {
      for (int32_t h = 0; h < shape_.kv_heads; ++h) {
        for (int32_t slot = 0; slot < shape_.block; ++slot) {
          for (int32_t d = 0; d < shape_.head_dim; ++d) {
            std::memcpy(to.k(page, h, slot, d), pages_of_bits().k(page, h, slot, d), 2);
            std::memcpy(to.v(page, h, slot, d), pages_of_bits().v(page, h, slot, d), 2);
          }
        }
      }
    }
    std::vector<int32_t> rows;
    for (const Rotation& r : s.rotations) {
      for (int32_t i = 0; i < s.n_tokens; ++i)
        rows.push_back(query_position(r, s.first_position + i));
    }
    std::vector<float> out(q_.size());
    const cpu::AttentionSequence sequence{
        {0, s.n_tokens, s.first_position, static_cast<int32_t>(s.entries.size()),
         static_cast<int32_t>(s.rotations.size()), s.visibility},
        s.entries.data(),
        rows.data(),
        nullptr};
    cpu::AttentionArgs args{};
    args.q = q_.data();
    args.out = out.data();
    args.n_heads = shape_.heads;
    args.scale = scale_;
    args.angles = angles_.data();
    args.interleaved = shape_.interleaved;
    args.kv = to.read_only();
    args.sequences = &sequence;
    args.n_sequences = 1;
    const cpu::Kernels& k = cpu::kernels(cpu::Isa::kPortable);
    std::vector<float> scratch(static_cast<size_t>(
        k.attention_scratch(shape_.head_dim, shape_.heads / shape_.kv_heads, 0)));
    k.attention_reference(args, 0, k.attention_tasks(args), scratch.data());
    return out;
  }

  const Sequence& sequence(size_t i) const { return sequences_[i]; }
  const Shape& shape() const { return shape_; }

 private:
  bool check(const Output& got, bool rounds) const {
    if (got.out.size() != q_.size()) return false;
    size_t row = 0;
    for (const Sequence& s : sequences_) {
      for (int32_t i = 0; i < s.n_tokens; ++i) {
        for (int32_t h = 0; h < shape_.heads; ++h, ++row) {
          const Expected e = expect(s, i, h, row);
          for (int32_t d = 0; d < shape_.head_dim; ++d) {
            const double x = got.out[row * shape_.head_dim + d];
            if ((rounds && !(std::abs(x - e.rounded[d]) <= e.near[d])) ||
                !(std::abs(x - e.exact[d]) <= e.far[d])) {
              complaint_ = fmt::format("query {} head {} dim {}: {} for {} +- {} or {} +- {}", i, h,
                                       d, x, e.rounded[d], e.near[d], e.exact[d], e.far[d]);
              return false;
            }
          }
          if (!rounds) continue;
          const double lse = got.lse[row];
          if (std::isinf(e.lse) ? lse != e.lse : !(std::abs(lse - e.lse) <= e.lse_near)) {
            complaint_ =
                fmt::format("query {} head {} lse: {} for {} +- {}", i, h, lse, e.lse, e.lse_near);
            return false;
          }
        }
      }
    }
    return true;
  }
  void fill(std::vector<float>& values, int64_t n) {
    std::normal_distribution<float> normal;
    values.resize(static_cast<size_t>(n));
    for (float& v : values) v = normal(random_);
  }
  void make_angles(int32_t positions) {
    const int32_t half = shape_.head_dim / 2;
    for (int32_t p = 0; p < positions; ++p) {
      for (const bool sine : {false, true}) {
        for (int32_t i = 0; i < half; ++i) {
          const double a = p * std::pow(10000.0, -2.0 * i / shape_.head_dim);
          angles_.push_back(static_cast<float>(sine ? std::sin(a) : std::cos(a)));
        }
      }
    }
  }
  void make_pool(int32_t pages) {
    const auto bytes = static_cast<size_t>(pages * geometry_.page_bytes());
    pool_ = std::make_unique<DeviceBuffer<uint8_t>>(bytes, "pool");
    pool_bits_.assign(bytes / 2, 0x7FFF);  // NaN in both types
    std::normal_distribution<float> normal;
    for (const Sequence& s : sequences_) {
      for (const BlockEntry& e : s.entries) {
        for (int32_t slot = e.slot_begin; slot < e.slot_end; ++slot) {
          bool seen = false;
          for (int32_t i = 0; i < s.n_tokens; ++i) {
            seen = seen || sees(s, s.first_position + i, e.first_position + slot);
          }
          if (!seen) continue;
          for (int32_t h = 0; h < shape_.kv_heads; ++h) {
            for (const uint8_t* row :
                 {pages_of_bits().k(e.page, h, slot, 0), pages_of_bits().v(e.page, h, slot, 0)}) {
              const size_t first = bits_before(row);
              std::vector<uint16_t> bits;
              for (int32_t d = 0; d < shape_.head_dim; ++d)
                bits.push_back(to_bits(normal(random_)));
              std::copy(bits.begin(), bits.end(), pool_bits_.begin() + static_cast<int64_t>(first));
              pool_->upload({reinterpret_cast<const uint8_t*>(bits.data()), 2 * bits.size()},
                            2 * first);
            }
          }
        }
      }
    }
    pool_->freeze();
  }

  KvView<KeyOrder::kBySlot> pages_of_bits() const {
    return {reinterpret_cast<const uint8_t*>(pool_bits_.data()), geometry_};
  }
  /// Index in pool_bits_ of what lies at an address in it.
  size_t bits_before(const uint8_t* at) const {
    return static_cast<size_t>(at - pages_of_bits().page(0)) / sizeof(uint16_t);
  }

  /// The rule of visibility, in this test's own words.
  static bool sees(const Sequence& s, int32_t t, int32_t p) {
    if (p > t) return false;
    return p < s.visibility.sinks || int64_t{t} - p < s.visibility.window;
  }
  uint16_t to_bits(float f) const {
    return shape_.type == DType::kF16 ? f32_to_f16(f) : f32_to_bf16(f);
  }
  double from_bits(uint16_t bits) const {
    return shape_.type == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
  }
  double round(double x) const { return from_bits(to_bits(static_cast<float>(x))); }

  struct Slot {
    int32_t position;
    size_t key, value;  // offsets in pool_bits_
  };
  struct KvTile {
    int32_t rotation;
    std::vector<Slot> slots;
  };
  /// Up to 64 consecutive slots of up to 32 consecutive entries of one rotation.
  std::vector<KvTile> tiles(const Sequence& s, int32_t kv_head) const {
    std::vector<KvTile> tiles;
    for (size_t begin = 0, end = 0; begin < s.entries.size(); begin = end) {
      const int32_t rotation = s.entries[begin].rotation;
      bool fresh = true;
      while (end < s.entries.size() && end < begin + 32 && s.entries[end].rotation == rotation) {
        const BlockEntry& e = s.entries[end++];
        for (int32_t slot = e.slot_begin; slot < e.slot_end; ++slot) {
          if (fresh || tiles.back().slots.size() == 64) tiles.push_back({rotation, {}});
          fresh = false;
          tiles.back().slots.push_back({e.first_position + slot,
                                        bits_before(pages_of_bits().k(e.page, kv_head, slot, 0)),
                                        bits_before(pages_of_bits().v(e.page, kv_head, slot, 0))});
        }
      }
    }
    return tiles;
  }

  /// A query under one rotation: as the kernel rotates and rounds it, and exactly.
  struct Query {
    std::vector<double> rounded, exact;
  };
  Query rotated(const float* q, int32_t position) const {
    const int32_t half = shape_.head_dim / 2;
    Query to{std::vector<double>(shape_.head_dim), std::vector<double>(shape_.head_dim)};
    for (int32_t i = 0; i < half; ++i) {
      const int32_t a = shape_.interleaved ? 2 * i : i;
      const int32_t b = shape_.interleaved ? 2 * i + 1 : i + half;
      const float c = angles_[int64_t{position} * shape_.head_dim + i];
      const float s = angles_[int64_t{position} * shape_.head_dim + half + i];
      to.rounded[a] = round(std::fma(q[a], c, -(q[b] * s)));
      to.rounded[b] = round(std::fma(q[a], s, q[b] * c));
      to.exact[a] = double{q[a]} * c - double{q[b]} * s;
      to.exact[b] = double{q[a]} * s + double{q[b]} * c;
    }
    return to;
  }

  Expected expect(const Sequence& s, int32_t i, int32_t head, size_t row) const {
    const int32_t dim = shape_.head_dim;
    const int32_t t = s.first_position + i;
    const double to_log2 = scale_ * std::log2(std::exp(1.0));
    std::vector<Query> queries;
    for (const Rotation& r : s.rotations) {
      queries.push_back(rotated(&q_[row * dim], query_position(r, t)));
    }
    const double type_unit = shape_.type == DType::kF16 ? 0x1p-11 : 0x1p-8;
    const double smallest = shape_.type == DType::kF16 ? 0x1p-25 : 0;  // rounding of subnormals

    double largest = -INFINITY;
    double sum = 0;
    double error = 0x1p-21;  // relative, of a weight in float32
    double shift = 0;        // of an exact score by rounding q, in powers of two
    std::vector<double> value(dim), room(dim), size(dim);
    std::vector<double> exact_scores;
    std::vector<size_t> exact_values;
    int n_tiles = 0;
    for (const KvTile& tile : tiles(s, head / (shape_.heads / shape_.kv_heads))) {
      std::vector<double> scores;
      double top = largest;
      for (const Slot& slot : tile.slots) {
        double score = 0;
        double exact = 0;
        double terms = 0;
        if (!sees(s, t, slot.position)) {
          scores.push_back(-INFINITY);
          continue;
        }
        for (int32_t d = 0; d < dim; ++d) {
          const double key = from_bits(pool_bits_[slot.key + d]);
          score += queries[tile.rotation].rounded[d] * key;
          exact += queries[tile.rotation].exact[d] * key;
          terms += std::abs(queries[tile.rotation].exact[d] * key);
        }
        terms *= to_log2;
        // Sums of 16 products, then up to 8 of those and 3 roundings of the product with the scale.
        error =
            std::max(error, 0x1p-21 + (8 * terms * (1 + type_unit) + 3 * std::abs(score)) * kUnit);
        shift = std::max(shift, (type_unit + 2 * kUnit) * terms);
        scores.push_back(score * to_log2);
        exact_scores.push_back(exact * to_log2);
        exact_values.push_back(slot.value);
        top = std::max(top, scores.back());
      }
      if (top == -INFINITY) continue;
      ++n_tiles;
      const double rescale = std::exp2(largest - top);
      largest = top;
      sum *= rescale;
      for (int32_t d = 0; d < dim; ++d) {
        value[d] *= rescale;
        room[d] *= rescale;
        size[d] *= rescale;
      }
      for (size_t j = 0; j < scores.size(); ++j) {
        if (scores[j] == -INFINITY) continue;
        const double weight = std::exp2(scores[j] - top);
        const double between = round(weight * (1 + error)) - round(weight * (1 - error));
        sum += weight;
        for (int32_t d = 0; d < dim; ++d) {
          const double v = from_bits(pool_bits_[tile.slots[j].value + d]);
          value[d] += round(weight) * v;
          room[d] += between * std::abs(v);
          size[d] += weight * std::abs(v);
        }
      }
    }
    Expected e{std::vector<double>(dim),
               std::vector<double>(dim),
               std::vector<double>(dim),
               std::vector<double>(dim),
               -INFINITY,
               0};
    if (sum == 0) return e;
    const double sums = error + (40 * n_tiles + 8) * kUnit;  // roundings of sums in float32
    double exact_sum = 0;
    double exact_largest = *std::max_element(exact_scores.begin(), exact_scores.end());
    for (double& x : exact_scores) exact_sum += x = std::exp2(x - exact_largest);
    const double spread = std::exp2(2 * shift) - 1 + type_unit + sums;
    for (int32_t d = 0; d < dim; ++d) {
      e.rounded[d] = value[d] / sum;
      e.near[d] = (room[d] + (size[d] + std::abs(value[d])) * sums) / sum;
      double exact_size = 0;
      double exact_total = 0;
      for (size_t j = 0; j < exact_scores.size(); ++j) {
        const double v = from_bits(pool_bits_[exact_values[j] + d]);
        e.exact[d] += exact_scores[j] * v / exact_sum;
        exact_size += exact_scores[j] * std::abs(v) / exact_sum;
        exact_total += std::abs(v) / exact_sum;
      }
      e.far[d] = spread * exact_size + smallest * 2 * exact_total;
    }
    e.lse = (largest + std::log2(sum)) * std::log(2.0);
    e.lse_near = sums + 4 * kUnit * (std::abs(largest) + std::abs(std::log2(sum)) + 1);
    return e;
  }

  Shape shape_;
  std::vector<Sequence> sequences_;
  std::mt19937 random_;
  PageGeometry geometry_{};
  float scale_ = 1;
  int32_t n_tokens_ = 0;
  std::vector<float> q_, angles_;
  std::vector<uint16_t> pool_bits_;
  std::unique_ptr<DeviceBuffer<uint8_t>> pool_;
  mutable std::string complaint_;
};

#define EXPECT_RIGHT(scene) \
  EXPECT_TRUE((scene).is_right()) << (scene).complaint() << simt::take_report_text()

TEST(PrefillAttention, EqualsFloat64OverShapes) {
  for (const Shape& shape :
       {Shape{1, 1, 64, 16, DType::kBF16, false}, Shape{2, 1, 64, 8, DType::kF16, true},
        Shape{3, 1, 64, 64, DType::kBF16, true}, Shape{4, 2, 64, 1, DType::kF16, false},
        Shape{1, 1, 80, 7, DType::kF16, true}, Shape{2, 1, 80, 16, DType::kBF16, false},
        Shape{2, 2, 96, 100, DType::kBF16, true}, Shape{2, 1, 96, 33, DType::kF16, false},
        Shape{1, 1, 128, 16, DType::kF16, false}, Shape{2, 1, 128, 32, DType::kBF16, true},
        // Dimensions that no kernel has for itself.
        Shape{2, 1, 8, 16, DType::kF16, false}, Shape{1, 1, 40, 3, DType::kBF16, true},
        Shape{2, 1, 104, 4096, DType::kF16, false}}) {
    SCOPED_TRACE(fmt::format("heads {}/{} head_dim {} block {}", shape.heads, shape.kv_heads,
                             shape.head_dim, shape.block));
    Scene scene(shape, {whole_table(90, 70, shape.block, {})});
    EXPECT_RIGHT(scene);
  }
}

TEST(PrefillAttention, EqualsFloat64OverManyTiles) {
  for (const Shape& shape :
       {Shape{4, 2, 16, 16, DType::kBF16, false}, Shape{1, 1, 16, 24, DType::kF16, true}}) {
    for (const auto& [sinks, window] :
         std::vector<std::pair<int32_t, int32_t>>{{0, INT32_MAX}, {70, 500}, {0, 300}}) {
      SCOPED_TRACE(fmt::format("{} heads, sinks {} window {}", shape.heads, sinks, window));
      Scene scene(shape, {whole_table(1500, 40, shape.block, {sinks, window})});
      EXPECT_RIGHT(scene);
    }
  }
}

TEST(PrefillAttention, EqualsFloat64UnderRules) {
  const Shape shape{1, 1, 64, 16, DType::kBF16, false};
  for (const auto& [sinks, window] :
       std::vector<std::pair<int32_t, int32_t>>{{0, 20}, {4, 12}, {17, 16}, {1, 1}, {33, 70}}) {
    for (const auto& [length, n] : std::vector<std::pair<int32_t, int32_t>>{
             {1, 1}, {64, 64}, {65, 65}, {150, 17}, {230, 3}}) {
      SCOPED_TRACE(fmt::format("sinks {} window {} length {}", sinks, window, length));
      Scene scene(shape, {whole_table(length, n, shape.block, {sinks, window})});
      EXPECT_RIGHT(scene);
    }
  }
}

/// A table with holes, entries in parts, empty entries and many rotations.
Sequence random_table(std::mt19937& random, int32_t block, int32_t length, int32_t n_tokens) {
  const auto below = [&](int32_t n) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(n));
  };
  Sequence s{length - n_tokens, n_tokens, {}, {{}, {length / 3, INT32_MAX}, {0, length / 2}}, {}};
  if (below(2) == 0) s.visibility = {block * below(3), 1 + below(length)};
  int32_t rotation = 0;
  for (int32_t b = 0; b * block < length; ++b) {
    if (below(4) == 0) continue;
    if (below(6) == 0) rotation = b * block < length / 3 ? 2 * below(2) : below(3);
    const int32_t end = std::min(block, length - b * block);
    int32_t begin = below(5) == 0 ? below(end + 1) : 0;
    do {
      const int32_t cut = below(3) == 0 ? begin + below(end - begin + 1) : end;
      s.entries.push_back(
          {b, b * block, static_cast<uint16_t>(begin), static_cast<uint16_t>(cut), rotation});
      begin = cut + below(3) / 2;
    } while (begin < end);
  }
  if (length / 3 > s.first_position) s.rotations[1].query_shift = 0;
  return s;
}

TEST(PrefillAttention, EqualsFloat64OverRaggedTables) {
  std::mt19937 random(3);
  for (uint32_t i = 0; i < 24; ++i) {
    const int32_t block = std::vector<int32_t>{1, 2, 5, 16, 40, 130}[i % 6];
    const int32_t length = 20 + static_cast<int32_t>(random() % 230);
    const int32_t n = 1 + static_cast<int32_t>(random() % 30);
    SCOPED_TRACE(fmt::format("table {} block {} length {} queries {}", i, block, length, n));
    const DType type = i % 2 == 0 ? DType::kF16 : DType::kBF16;
    Scene scene({1, 1, 32, block, type, i % 3 == 0},
                {random_table(random, block, length, std::min(n, length))}, i);
    EXPECT_RIGHT(scene);
  }
}

TEST(PrefillAttention, IsZeroWhereNothingIsSeen) {
  const Shape shape{2, 1, 64, 16, DType::kF16, false};
  Sequence empty{40, 5, {}, {{}}, {}};
  Sequence later{3, 20, {{0, 8, 0, 16, 0}}, {{}}, {}};       // queries 3 to 7 come before it
  Sequence past{30, 10, {{1, 0, 0, 16, 0}}, {{}}, {0, 20}};  // ... 36 to 39 have left it behind
  Scene scene(shape, {empty, later, past});
  const Output got = scene.run();
  EXPECT_TRUE(scene.check(got)) << scene.complaint() << simt::take_report_text();
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(got.lse[i * 2], -INFINITY);
    EXPECT_EQ(got.out[i * 128], 0.0F);
  }
}

TEST(PrefillAttention, SkipsLongStretchesThatNobodySees) {
  Sequence s = whole_table(3000, 4, 16, {16, 40});
  Scene scene({1, 1, 64, 16, DType::kBF16, false}, {s});
  EXPECT_RIGHT(scene);
}

TEST(PrefillAttention, AgreesWithTheCpuKernel) {
  for (const DType type : {DType::kF16, DType::kBF16}) {
    Scene scene({2, 1, 64, 16, type, true}, {whole_table(100, 30, 16, {8, 50})});
    EXPECT_RIGHT(scene);
    EXPECT_TRUE(scene.check_exact(scene.on_cpu())) << scene.complaint();
  }
}

TEST(PrefillAttention, AQueryGetsTheSameBitsInAnyTileAndBatch) {
  const Shape shape{2, 1, 64, 16, DType::kBF16, false};
  const Sequence first = whole_table(140, 80, 16, {20, 60});
  Scene alone(shape, {first});
  const Output together = alone.run();
  const size_t row = 128;
  for (const auto& [from, n] :
       std::vector<std::pair<int32_t, int32_t>>{{0, 1}, {30, 50}, {79, 1}}) {
    const Output part = alone.run(true, from, n);
    ASSERT_EQ(part.out.size(), static_cast<size_t>(n) * row) << simt::take_report_text();
    EXPECT_TRUE(std::equal(part.out.begin(), part.out.end(), together.out.begin() + from * 128));
    EXPECT_TRUE(std::equal(part.lse.begin(), part.lse.end(), together.lse.begin() + from * 2));
  }
  const Output without_lse = alone.run(false);
  EXPECT_EQ(without_lse.out, together.out);
}

TEST(PrefillAttention, SequencesDoNotMeet) {
  const Shape shape{1, 1, 64, 16, DType::kF16, false};
  Sequence second = whole_table(70, 66, 16, {});
  for (BlockEntry& e : second.entries) e.page += 3;
  Scene scene(shape, {whole_table(40, 20, 16, {0, 30}), second});
  EXPECT_RIGHT(scene);
}

TEST(PrefillAttention, RefusesWhatItCannotDo) {
  const PageGeometry good{2, 16, 64, DType::kF16};
  EXPECT_TRUE(prefill_supports(good, 6));
  EXPECT_FALSE(prefill_supports(good, 5));
  EXPECT_FALSE(prefill_supports({2, 16, 64, DType::kF32}, 6));
  EXPECT_FALSE(prefill_supports({2, 16, 60, DType::kBF16}, 6));
  EXPECT_FALSE(prefill_supports({2, 16, 136, DType::kBF16}, 6));
  AttentionArgs args{};
  args.kv = {nullptr, good};
  args.n_heads = 4;
  args.scale = 1;
  EXPECT_EQ(prefill_attention(args, {nullptr, 0}, nullptr), 0);
  EXPECT_EQ(prefill_attention(args, {nullptr, -1}, nullptr), kInvalid);
  args.scale = 0;
  EXPECT_EQ(prefill_attention(args, {nullptr, 0}, nullptr), kInvalid);
  args.scale = 1;
  args.kv = {nullptr, {2, 16, 64, DType::kF32}};
  EXPECT_EQ(prefill_attention(args, {nullptr, 0}, nullptr), kInvalid);
}

Scene small_scene() {
  return Scene({3, 1, 16, 16, DType::kBF16, false}, {whole_table(100, 30, 16, {20, 70})});
}

TEST(PrefillAttention, IsRightUnderEverySchedule) {
  Scene scene = small_scene();
  simt::for_each_schedule([&](const std::string& schedule) {
    SCOPED_TRACE(schedule);
    EXPECT_RIGHT(scene);
  });
}

TEST(PrefillAttention, NeedsEachOfItsSites) {
  Scene scene = small_scene();
  EXPECT_THAT(simt::surviving_mutants([&] { return scene.is_right(); }), testing::IsEmpty());
  EXPECT_EQ(simt::sites_met().size(), 10U);
}

}  // namespace
}  // namespace paddock::cuda
