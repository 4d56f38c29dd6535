// Attention masses and block uses on the CPU under the SIMT harness.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda_attention_scene.h"

namespace paddock::cuda::test {
namespace {

std::vector<float> to_floats(const std::vector<double>& x) { return {x.begin(), x.end()}; }

/// Masses from the right logarithms; empty after an error.
std::vector<int64_t> masses(const AttentionScene& scene, const Expected& expected) {
  AttentionScene::Device device(scene);
  device.lse.upload(to_floats(expected.lse));
  device.lse.freeze();
  if (attention_mass(device.args, scene.n_sequences(), scene.max_tokens(), scene.max_entries(),
                     nullptr) != 0) {
    return {};
  }
  return device.masses.download();
}

std::string wrong(const std::vector<int64_t>& masses, const Expected& expected) {
  if (masses.size() != expected.masses.size()) return "an error";
  for (size_t i = 0; i < masses.size(); ++i) {
    const auto mass = static_cast<double>(masses[i]);
    if (!(std::abs(mass - expected.masses[i]) <= expected.mass_room[i])) {
      return fmt::format("mass {}: {} instead of {}, room {}", i, mass, expected.masses[i],
                         expected.mass_room[i]);
    }
  }
  return "";
}

/// What the kernel makes of given masses; the room of unmeasured sequences stays unwritten.
std::vector<BlockUse> uses(const AttentionScene& scene, const std::vector<int64_t>& masses) {
  AttentionScene::Device device(scene);
  device.masses.upload(masses);
  device.masses.freeze();
  std::vector<int64_t> first;
  int64_t n = 0;
  for (const AttentionSequence& s : scene.sequences()) {
    first.push_back(n);
    if (s.first_mass >= 0) n += s.n_entries;
  }
  const simt::DeviceBuffer<int64_t> uses_first(first, "uses_first");
  const simt::DeviceBuffer<BlockUse> to(static_cast<size_t>(n), "uses");
  if (add_up_uses(device.args, uses_first.data(), to.data(), scene.n_sequences(),
                  scene.max_entries(), nullptr) != 0) {
    return {};
  }
  return to.download();
}

bool same(const std::vector<BlockUse>& a, const std::vector<BlockUse>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(BlockUse)) == 0;
}

std::vector<SceneSequence> several() {
  return {{.length = 150, .n_query = 2, .rotations = 2},
          {.length = 60, .n_query = 1, .measured = false},
          {.length = 200, .n_query = 3, .visibility = {3, 40}, .rotations = 2},
          {.length = 90, .hole_every = 3, .doubled = true}};
}

TEST(CudaMass, IsRightForEveryType) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const SceneShape& shape :
         {SceneShape{4, 1, 64, 16, type}, SceneShape{12, 1, 18, 5, type, true},
          SceneShape{6, 2, 128, 8, type}, SceneShape{2, 1, 160, 64, type}}) {
      const AttentionScene scene(shape, several());
      const Expected expected = scene.expected();
      EXPECT_EQ(wrong(masses(scene, expected), expected), "");
      EXPECT_EQ(simt::take_report_text(), "");
    }
  }
}

TEST(CudaMass, EqualsTheReferenceOnTheCpu) {
  const AttentionScene scene({6, 2, 64, 16, DType::kBF16}, several());
  const Expected expected = scene.expected();
  const std::vector<int64_t> gpu = masses(scene, expected);
  const std::vector<int64_t> cpu = scene.cpu().masses;
  ASSERT_EQ(gpu.size(), cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(gpu[i]), static_cast<double>(cpu[i]),
                2 * expected.mass_room[i]);
  }
}

TEST(CudaMass, NoScheduleChangesABit) {
  const AttentionScene scene({5, 1, 16, 8, DType::kF16}, several());
  const Expected expected = scene.expected();
  const std::vector<int64_t> first = masses(scene, expected);
  ASSERT_EQ(wrong(first, expected), "");
  simt::for_each_schedule([&](const std::string& schedule) {
    EXPECT_EQ(masses(scene, expected), first) << schedule;
    EXPECT_EQ(simt::take_report_text(), "") << schedule;
  });
}

TEST(CudaMass, UsesEqualTheCpus) {
  auto sequences = several();
  sequences.push_back({.length = 700, .n_query = 140, .rotations = 2});  // more than come at a time
  const AttentionScene scene({2, 1, 16, 2, DType::kF32}, sequences);
  const AttentionScene::CpuResult cpu = scene.cpu();
  int32_t used = 0;
  for (const BlockUse& use : cpu.uses) used += use.last_used >= 0 ? 1 : 0;
  EXPECT_GT(used, 10);
  EXPECT_LT(used, static_cast<int32_t>(cpu.uses.size()));
  EXPECT_TRUE(same(uses(scene, cpu.masses), cpu.uses));
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaMass, RefusesWhatItCannotDo) {
  const AttentionScene scene({4, 2, 16, 16, DType::kF16}, {{.length = 20}});
  AttentionScene::Device device(scene);
  EXPECT_EQ(attention_mass(device.args, -1, 1, 2, nullptr), kInvalid);
  EXPECT_EQ(attention_mass(device.args, 65536, 1, 2, nullptr), kInvalid);
  EXPECT_EQ(attention_mass(device.args, 0, 1, 2, nullptr), 0);
  EXPECT_EQ(add_up_uses(device.args, nullptr, nullptr, -1, 2, nullptr), kInvalid);
  device.args.lse = nullptr;
  EXPECT_EQ(attention_mass(device.args, 1, 1, 2, nullptr), kInvalid);
}

TEST(CudaMass, NeedsEachOfItsSites) {
  const AttentionScene splits({5, 1, 18, 16, DType::kBF16},
                              {{.length = 140, .n_query = 2, .rotations = 2}, {.length = 9}});
  const AttentionScene stages({4, 1, 32, 512, DType::kF32}, {{.length = 180}});
  const AttentionScene many({1, 1, 16, 16, DType::kF32}, {{.length = 150, .n_query = 130}});
  const Expected of_splits = splits.expected();
  const Expected of_stages = stages.expected();
  const AttentionScene::CpuResult cpu = many.cpu();
  EXPECT_THAT(simt::surviving_mutants([&] {
                return wrong(masses(stages, of_stages), of_stages).empty() &&
                       wrong(masses(splits, of_splits), of_splits).empty() &&
                       same(uses(many, cpu.masses), cpu.uses);
              }),
              testing::IsEmpty());
}

}  // namespace
}  // namespace paddock::cuda::test
