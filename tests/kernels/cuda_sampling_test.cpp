// Sampling on the device under the harness, against the host's: the same token for the same logits,
// options and random number, always. tests/unit/sampling_test.cpp holds the host's against doubles.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "cuda/launch.h"
#include "engine/sampler.h"
#include "support/simt/harness.h"

namespace paddock::cuda {
namespace {

using simt::DeviceBuffer;

/// Rows of logits with their options, and what the host makes of them.
class Scene {
 public:
  Scene(int32_t vocab_size, int32_t n_rows, uint32_t seed) : vocab_size_(vocab_size) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 3);
    logits_.resize(static_cast<size_t>(n_rows) * stride(), NAN);
    for (int32_t r = 0; r < n_rows; ++r) {
      // Every other row is full of ties, also at zero with either sign.
      for (int32_t i = 0; i < vocab_size; ++i) {
        const float logit = normal(random);
        row(r)[i] = r % 2 == 0 ? logit : std::round(logit);
      }
      const uint32_t kind = random();
      rows_.push_back({kind % 5 == 0 ? 0.0F : 0.25F * static_cast<float>(1 + kind % 9),
                       kind / 16 % 4 == 0 ? 0 : static_cast<int32_t>(1 + random() % 60),
                       kind / 64 % 2 == 0 ? 1.0F : 0.1F * static_cast<float>(1 + random() % 9),
                       kind / 128 % 2 == 0 ? 0.0F : 0.03F * static_cast<float>(random() % 9), seed,
                       random()});
    }
  }

  int64_t stride() const { return vocab_size_ + 3; }
  float* row(int32_t r) { return logits_.data() + r * stride(); }
  SampleRow& how(int32_t r) { return rows_[r]; }
  void set(const SampleRow& how) { rows_.assign(rows_.size(), how); }

  /// Whether the device chooses as the host does, `times` in a row with the same workspace.
  bool right(int times = 1) {
    auto n = static_cast<int32_t>(rows_.size());
    DeviceBuffer<float> logits(logits_, "logits");
    DeviceBuffer<SampleRow> rows(rows_, "rows");
    logits.freeze();
    rows.freeze();
    DeviceBuffer<uint64_t> workspace(sample_workspace_bytes(vocab_size_, n) / 8, "workspace");
    workspace.fill(0);
    SampleArgs args{logits.data(),    stride(), vocab_size_, rows.data(), nullptr,
                    workspace.data(), n,        false,       false,       false};
    for (const SampleRow& r : rows_) {
      args.any_top_k |= r.top_k > 0;
      args.any_top_p |= r.top_p < 1;
      args.any_draw |= r.temperature > 0;
    }
    for (int i = 0; i < times; ++i) {
      DeviceBuffer<int32_t> tokens(n, "tokens");
      args.tokens = tokens.data();
      if (sample(args, nullptr) != 0) return false;
      const std::vector<int32_t> chosen = tokens.download();
      for (int32_t r = 0; r < n; ++r) {
        if (chosen[r] != expected(r)) return false;
      }
      args.n_rows = n = n > 1 ? n - 1 : n;  // fewer rows share the workspace
    }
    return true;
  }

 private:
  TokenId expected(int32_t r) {
    const std::span<const float> logits(row(r), vocab_size_);
    if (first_non_finite(logits.data(), vocab_size_) >= 0) return -1;
    if (rows_[r].temperature == 0) return greedy_choice(logits.data(), vocab_size_);
    std::vector<Candidate> scratch(vocab_size_);
    return draw_token(logits, rows_[r], scratch);
  }

  int32_t vocab_size_;
  std::vector<float> logits_;
  std::vector<SampleRow> rows_;
};

TEST(CudaSampling, ChoosesAsTheHostDoes) {
  for (const int32_t vocab_size : {1, 2, 50, 300, 4096, 4097, 9000}) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      Scene scene(vocab_size, 7, seed);
      EXPECT_TRUE(scene.right(2)) << vocab_size << " " << seed << simt::take_report_text();
    }
  }
}

TEST(CudaSampling, EveryOptionByItself) {
  const SampleRow plain{1.0F, 0, 1.0F, 0.0F, 5, 1};
  for (int which = 0; which < 7; ++which) {
    SampleRow how = plain;
    if (which == 1) how.temperature = 0;
    if (which == 2) how.top_k = 1;
    if (which == 3) how.top_k = 200;
    if (which == 4) how.top_p = 0.5F;
    if (which == 5) how.min_p = 0.2F;
    if (which == 6) how.temperature = 1e-30F;
    for (how.n = 0; how.n < 5; ++how.n) {
      Scene scene(5000, 2, 40 + which);
      scene.set(how);
      EXPECT_TRUE(scene.right()) << which << " " << how.n << simt::take_report_text();
    }
  }
}

TEST(CudaSampling, OfEqualLogitsTheLowestIdsStay) {
  // All equal: a cut keeps the first ones, in several slices.
  for (const int32_t top_k : {1, 100, 5000, 9000}) {
    for (const float top_p : {0.3F, 1.0F}) {
      Scene scene(9000, 3, 1);
      for (int32_t r = 0; r < 3; ++r) {
        std::fill_n(scene.row(r), 9000, -2.0F);
        scene.how(r) = {1.0F, top_k, top_p, 0.5F, 9, static_cast<uint64_t>(r)};
      }
      EXPECT_TRUE(scene.right()) << top_k << " " << top_p << simt::take_report_text();
    }
  }
}

TEST(CudaSampling, RowsThatAreNotFiniteHaveNoToken) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Scene scene(4500, 4, 2);
    scene.row(1)[4499] = bad;
    scene.row(2)[0] = bad;
    EXPECT_TRUE(scene.right()) << bad << simt::take_report_text();
  }
}

TEST(CudaSampling, TheLargestAndSmallestNumbers) {
  // Differences and quotients overflow; what is drawn does not depend on it.
  constexpr float kMost = 3.4e38F;
  for (const float best : {kMost, 0.0F, -kMost}) {
    for (const float temperature : {0.0F, 1e-45F, 1.0F, kMost}) {
      Scene scene(4500, 4, 3);
      for (int32_t r = 0; r < 4; ++r) {
        std::fill_n(scene.row(r), 4500, -kMost);
        scene.row(r)[7 + r] = scene.row(r)[4200] = best;
        scene.how(r) = {temperature, r % 2 == 0 ? 0 : 3,      r < 2 ? 1.0F : 0.7F, 0.0F,
                        9,           static_cast<uint64_t>(r)};
      }
      EXPECT_TRUE(scene.right()) << best << " " << temperature << simt::take_report_text();
    }
  }
}

TEST(CudaSampling, IsRightUnderEverySchedule) {
  simt::for_each_schedule([](const std::string& schedule) {
    Scene scene(4600, 3, 11);
    scene.how(0) = {0.9F, 40, 0.9F, 0.05F, 1, 2};
    EXPECT_TRUE(scene.right()) << schedule << simt::take_report_text();
  });
}

TEST(CudaSampling, NeedsEachOfItsSites) {
  Scene scene(4600, 3, 12);
  scene.how(0) = {0.9F, 40, 0.9F, 0.05F, 1, 2};
  scene.how(1) = {1.5F, 0, 0.9F, 0.0F, 1, 3};
  scene.how(2) = {1.5F, 700, 1.0F, 0.0F, 1, 4};
  Scene small(700, 2, 13);  // what lies past its end is nobody's
  small.how(1) = {1.5F, 0, 1.0F, 0.0F, 1, 5};
  EXPECT_EQ(simt::surviving_mutants([&] { return scene.right(2) && small.right(); }),
            std::vector<std::string>{});
}

TEST(CudaSampling, RefusesWhatItCannotTake) {
  EXPECT_TRUE(sample_supports(128256));
  EXPECT_FALSE(sample_supports(0));
  EXPECT_FALSE(sample_supports(1 << 21));
  float* nowhere = nullptr;
  SampleArgs args{nowhere, 10, 10, nullptr, nullptr, nullptr, 1, false, false, true};
  EXPECT_EQ(sample(args, nullptr), kInvalid);  // no workspace
  args.workspace = &args;
  args.stride = 9;
  EXPECT_EQ(sample(args, nullptr), kInvalid);
  args.n_rows = 0;
  EXPECT_EQ(sample(args, nullptr), 0);
}

}  // namespace
}  // namespace paddock::cuda
