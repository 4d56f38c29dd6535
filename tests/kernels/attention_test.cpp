// Paged attention against a float64 loop over plain rows, with an independent rule of visibility.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cpu/kernels.h"
#include "half.h"

namespace paddock::cpu {
namespace {

struct Shape {
  int32_t heads, kv_heads, head_dim, block;
  DType type;
};

/// One sequence of `length` tokens whose last `n_query` are in the batch, under sinks and a window.
class Scene {
 public:
  Scene(const Shape& shape, int32_t length, int32_t n_query, int32_t sinks, int32_t window,
        bool interleaved)
      : shape_(shape),
        length_(length),
        n_(n_query),
        sinks_(sinks),
        window_(window),
        interleaved_(interleaved) {
    geometry_ = {shape.kv_heads, shape.block, shape.head_dim, shape.type};
    const int32_t pages = (length + shape.block - 1) / shape.block;
    // Poison: whatever nobody wrote is NaN in every type.
    pool_.assign(static_cast<size_t>(pages * geometry_.page_bytes()), 0xFF);
    fill(k_, length * shape.kv_heads * shape.head_dim);
    fill(v_, length * shape.kv_heads * shape.head_dim);
    fill(q_, n_query * shape.heads * shape.head_dim);
    make_angles();
    make_table();
    store();
  }

  std::vector<float> run(const Kernels& k, bool reference, int32_t first, int32_t n) const {
    AttentionSequence s{};
    s.n_tokens = n;
    s.first_position = length_ - n_ + first;
    s.entries = entries_.data();
    s.n_entries = static_cast<int32_t>(entries_.size());
    std::vector<int32_t> rows;
    for (const int32_t cap : {cap_, INT32_MAX}) {
      for (int32_t i = 0; i < n; ++i) rows.push_back(std::min(cap, s.first_position + i));
    }
    s.angle_rows = rows.data();
    s.n_rotations = 2;
    s.visibility = {sinks_, window_};
    AttentionArgs args{};
    const int64_t row = int64_t{shape_.heads} * shape_.head_dim;
    std::vector<float> out(static_cast<size_t>(n * row));
    args.q = q_.data() + first * row;
    args.out = out.data();
    args.n_heads = shape_.heads;
    args.scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_dim));
    args.angles = angles_.data();
    args.interleaved = interleaved_;
    args.kv = {pool_.data(), geometry_};
    args.sequences = &s;
    args.n_sequences = 1;
    std::vector<float> scratch(static_cast<size_t>(k.attention_scratch(
                                   shape_.head_dim, shape_.heads / shape_.kv_heads, 0)),
                               NAN);
    (reference ? k.attention_reference : k.attention)(args, 0, k.attention_tasks(args),
                                                      scratch.data());
    return out;
  }

  /// The same in double, from the rows themselves.
  std::vector<double> expected() const {
    const int32_t d = shape_.head_dim;
    const int32_t group = shape_.heads / shape_.kv_heads;
    std::vector<double> out;
    for (int32_t i = 0; i < n_; ++i) {
      const int32_t t = length_ - n_ + i;
      for (int32_t h = 0; h < shape_.heads; ++h) {
        std::vector<double> scores;
        std::vector<int32_t> seen;
        for (int32_t p = 0; p <= t; ++p) {
          const bool sink = p < sinks_;
          if (!sink && int64_t{t} - p >= window_) continue;
          const double at = sink ? std::min(t, cap_) : t;
          const std::vector<double> q = rotated(&q_[(int64_t{i} * shape_.heads + h) * d], at);
          const std::vector<double> key = stored_key(p, h / group);
          double dot = 0;
          for (int32_t j = 0; j < d; ++j) dot += q[j] * key[j];
          scores.push_back(dot / std::sqrt(d));
          seen.push_back(p);
        }
        const double top = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (double& s : scores) total += s = std::exp(s - top);
        for (int32_t j = 0; j < d; ++j) {
          double sum = 0;
          for (size_t s = 0; s < seen.size(); ++s) {
            sum +=
                scores[s] * rounded(v_[(int64_t{seen[s]} * shape_.kv_heads + h / group) * d + j]);
          }
          out.push_back(sum / total);
        }
      }
    }
    return out;
  }

  int32_t n_query() const { return n_; }

 private:
  void fill(std::vector<float>& values, int64_t n) {
    std::normal_distribution<float> normal;
    values.resize(static_cast<size_t>(n));
    for (float& v : values) v = normal(random_);
  }

  double inverse_frequency(int32_t i) const {
    return std::pow(10000.0, -2.0 * i / shape_.head_dim);
  }

  void make_angles() {
    const int32_t half = shape_.head_dim / 2;
    for (int32_t p = 0; p < length_; ++p) {
      for (const bool sine : {false, true}) {
        for (int32_t i = 0; i < half; ++i) {
          const double a = p * inverse_frequency(i);
          angles_.push_back(static_cast<float>(sine ? std::sin(a) : std::cos(a)));
        }
      }
    }
  }

  void make_table() {
    cap_ = sinks_ > 0 ? sinks_ + window_ - 1 : INT32_MAX;
    const int32_t oldest = length_ - n_ - std::min(window_, length_) + 1;
    for (int32_t first = 0; first < length_; first += shape_.block) {
      const int32_t end = std::min(length_ - first, shape_.block);
      const int32_t cut = std::clamp(sinks_ - first, 0, end);
      const auto page = first / shape_.block;
      if (cut > 0) entries_.push_back({page, first, 0, static_cast<uint16_t>(cut), 0});
      if (cut < end && first + end > oldest) {  // what every query has left behind is a hole
        entries_.push_back(
            {page, first, static_cast<uint16_t>(cut), static_cast<uint16_t>(end), 1});
      }
    }
  }

  void store() {
    std::vector<KvDestination> to;
    std::vector<int32_t> rows;
    for (int32_t p = 0; p < length_; ++p) {
      to.push_back({p / shape_.block, p % shape_.block});
      rows.push_back(p);
    }
    const int64_t stride = int64_t{shape_.kv_heads} * shape_.head_dim;
    const RopeStoreArgs args{k_.data(),      v_.data(),   stride,       stride,
                             angles_.data(), rows.data(), interleaved_, {pool_.data(), geometry_},
                             to.data(),      nullptr,     nullptr};
    kernels(Isa::kPortable).rope_store(args, 0, length_);
  }

  std::vector<double> rotated(const float* x, double position) const {
    const int32_t half = shape_.head_dim / 2;
    std::vector<double> out(static_cast<size_t>(shape_.head_dim));
    for (int32_t i = 0; i < half; ++i) {
      const int32_t a = interleaved_ ? 2 * i : i;
      const int32_t b = interleaved_ ? 2 * i + 1 : i + half;
      const double angle = position * inverse_frequency(i);
      out[a] = x[a] * std::cos(angle) - x[b] * std::sin(angle);
      out[b] = x[a] * std::sin(angle) + x[b] * std::cos(angle);
    }
    return out;
  }

  double rounded(float x) const {
    if (shape_.type == DType::kF16) return f16_to_f32(f32_to_f16(x));
    if (shape_.type == DType::kBF16) return bf16_to_f32(f32_to_bf16(x));
    return x;
  }

  std::vector<double> stored_key(int32_t p, int32_t head) const {
    std::vector<double> key =
        rotated(&k_[(int64_t{p} * shape_.kv_heads + head) * shape_.head_dim], p);
    for (double& x : key) x = rounded(static_cast<float>(x));
    return key;
  }

  Shape shape_;
  int32_t length_, n_, sinks_, window_;
  bool interleaved_;
  int32_t cap_ = INT32_MAX;
  PageGeometry geometry_{};
  std::mt19937 random_{17};
  std::vector<float> k_, v_, q_, angles_;
  std::vector<uint8_t> pool_;
  std::vector<BlockEntry> entries_;
};

class Attention : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!isa_supported(GetParam()))
      GTEST_SKIP() << isa_name(GetParam()) << " is not supported here";
  }
};

void expect_close(const std::vector<float>& actual, const std::vector<double>& expected,
                  double tolerance, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance) << what << " element " << i;
  }
}

TEST_P(Attention, EqualsFloat64OverShapesAndRules) {
  const Kernels& k = kernels(GetParam());
  const Shape shapes[] = {{4, 4, 16, 16, DType::kF32}, {3, 1, 64, 16, DType::kF16},
                          {8, 2, 80, 7, DType::kBF16}, {8, 1, 128, 64, DType::kF16},
                          {2, 1, 18, 1, DType::kF32},  {6, 2, 64, 16, DType::kF32}};
  const std::pair<int, int> rules[] = {{0, INT32_MAX}, {0, 20}, {4, 12},
                                       {17, 16},       {1, 1},  {16, 33}};
  for (const Shape& shape : shapes) {
    for (const auto& [sinks, window] : rules) {
      for (const int32_t length : {1, 15, 16, 17, 63, 64, 65, 150}) {
        const int32_t n = std::min(length, 1 + length / 3);
        const Scene scene(shape, length, n, sinks, window, length % 2 == 0);
        const std::string what = fmt::format("head_dim {} block {} sinks {} window {} length {}",
                                             shape.head_dim, shape.block, sinks, window, length);
        // 16-bit keys round once more where a product in float differs from one in double.
        const double tolerance = shape.type == DType::kF32 ? 2e-5 : 2e-2;
        const std::vector<double> expected = scene.expected();
        expect_close(scene.run(k, false, 0, n), expected, tolerance, what);
        expect_close(scene.run(k, true, 0, n), expected, tolerance, what + " reference");
      }
    }
  }
}

// One query reads keys and values where they lie if whole vectors of them lie in each block, and
// many have them converted first.
TEST_P(Attention, OneQueryGetsTheSameBitsInAnyTile) {
  const Kernels& k = kernels(GetParam());
  const Shape shapes[] = {{6, 2, 64, 16, DType::kF16},   {6, 2, 80, 8, DType::kBF16},
                          {4, 1, 128, 64, DType::kBF16}, {8, 1, 18, 32, DType::kF32},
                          {3, 3, 64, 48, DType::kF16},   {6, 2, 64, 7, DType::kF16}};
  for (const Shape& shape : shapes) {
    for (const bool reference : {false, true}) {
      for (const auto& [sinks, window] : {std::pair(3, 90), std::pair(0, INT32_MAX)}) {
        const Scene scene(shape, 200, 40, sinks, window, true);
        const int64_t row = int64_t{shape.heads} * shape.head_dim;
        const std::vector<float> together = scene.run(k, reference, 0, 40);
        for (int32_t i = 0; i < 40; ++i) {
          const std::vector<float> alone = scene.run(k, reference, i, 1);
          ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + i * row))
              << "block " << shape.block << " sinks " << sinks << " query " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, Attention, testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& tested) { return std::string(isa_name(tested.param)); });

}  // namespace
}  // namespace paddock::cpu
