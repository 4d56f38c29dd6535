// Decode attention on the CPU under the SIMT harness, against float64 and the CPU's reference.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda_decode_run.h"

namespace paddock::cuda::test {
namespace {

void expect_right(const AttentionScene& scene, const std::string& name) {
  const DecodeResult result = decode(scene);
  EXPECT_EQ(simt::take_report_text(), "") << name;
  EXPECT_EQ(wrong(scene, result, scene.expected()), "") << name;
}

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

TEST(CudaDecode, IsRightForEveryShape) {
  struct Case {
    int32_t heads, kv_heads, head_dim, block;
    bool interleaved;
  };
  const Case cases[] = {
      {4, 1, 64, 16, false}, {8, 2, 128, 16, true},  {8, 1, 80, 8, false},   {3, 3, 96, 32, false},
      {7, 1, 16, 5, true},   {9, 1, 36, 1, false},   {2, 1, 18, 3, true},    {5, 1, 256, 64, false},
      {2, 2, 200, 7, true},  {16, 1, 32, 64, false}, {1, 1, 130, 12, false}, {12, 2, 22, 9, true},
  };
  for (const Case& c : cases) {
    for (const DType type : kTypes) {
      const AttentionScene scene({c.heads, c.kv_heads, c.head_dim, c.block, type, c.interleaved},
                                 {{.length = 37}, {.length = 150, .rotations = 2}});
      expect_right(scene, fmt::format("heads {}/{}, dim {}, block {}, {}", c.heads, c.kv_heads,
                                      c.head_dim, c.block, dtype_traits(type).name));
    }
  }
}

TEST(CudaDecode, SeesWhatTablesAndRulesSay) {
  for (const int32_t block : {4, 16, 33, 512}) {
    const AttentionScene scene(
        {4, 1, 16, block, DType::kBF16},
        {{.length = 1},
         {.length = 300, .n_query = 3, .visibility = {4, 20}, .rotations = 2},
         {.length = 290, .visibility = {0, 1}},
         {.length = 420, .n_query = 2, .hole_every = 3, .rotations = 3, .doubled = true},
         {.length = 333, .visibility = {130, 100}, .hole_every = 2, .rotations = 2}});
    expect_right(scene, fmt::format("block {}", block));
  }
}

TEST(CudaDecode, SplitsLongTablesAndLargeBlocks) {
  expect_right(AttentionScene({4, 1, 16, 16, DType::kF16}, {{.length = 4500}}), "long");
  expect_right(AttentionScene({1, 1, 16, 4096, DType::kF16}, {{.length = 4100}}), "large blocks");
  // More entries than the splits of a chunk's early tokens could hold: the last one takes the rest.
  expect_right(
      AttentionScene({8, 8, 16, 1, DType::kF32},
                     {{.length = 2300, .n_query = 2, .visibility = {1, 1500}, .rotations = 2}}),
      "long with a window");
}

TEST(CudaDecode, GivesZerosToQueriesThatSeeNothing) {
  // The first three queries stand before every entry that is left.
  for (const int32_t length : {20, 300}) {
    AttentionScene scene({4, 1, 16, 8, DType::kF16},
                         {{.length = length, .visibility = {0, 1}, .hole_every = 1},
                          {.length = length, .n_query = 1}});
    const Expected expected = scene.expected();
    EXPECT_EQ(expected.lse[0], -INFINITY);
    expect_right(scene, "nothing");
  }
}

TEST(CudaDecode, EqualsTheReferenceOnTheCpu) {
  for (const DType type : kTypes) {
    const AttentionScene scene(
        {6, 2, 64, 16, type}, {{.length = 200, .n_query = 2, .visibility = {4, 90}, .rotations = 2},
                               {.length = 90, .hole_every = 4, .doubled = true}});
    const DecodeResult result = decode(scene);
    ASSERT_EQ(simt::take_report_text(), "");
    const Expected expected = scene.expected();
    const auto cpu = scene.cpu().out;
    for (size_t i = 0; i < cpu.size(); ++i) {
      ASSERT_NEAR(result.out[i], cpu[i], 2 * expected.out_room[i / 64]) << i;
    }
  }
}

TEST(CudaDecode, ATokenDoesNotDependOnTheBatch) {
  const AttentionScene scene({4, 1, 16, 16, DType::kBF16},
                             {{.length = 100, .n_query = 2, .rotations = 2},
                              {.length = 400, .n_query = 2, .rotations = 2},
                              {.length = 9}});
  const DecodeResult all = decode(scene);
  EXPECT_EQ(decode(scene, {.max_entries = 5000}).out, all.out);  // room for longer tables
  for (const AttentionSequence& s : scene.sequences()) {
    const DecodeResult one = decode(scene, {.max_entries = s.n_entries, .only = s.first_token});
    const auto row = size_t{4} * 16;
    const auto first = s.first_token * row;
    for (size_t i = first; i < first + row; ++i) ASSERT_EQ(one.out[i], all.out[i]) << i;
    for (int32_t h = 0; h < 4; ++h) {
      ASSERT_EQ(one.lse[s.first_token * 4 + h], all.lse[s.first_token * 4 + h]);
    }
  }
  simt::for_each_schedule([&](const std::string& schedule) {
    const DecodeResult again = decode(scene);
    EXPECT_EQ(again.out, all.out) << schedule;
    EXPECT_EQ(again.lse, all.lse) << schedule;
  });
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaDecode, TakesSequencesOfOneTokenWithoutAList) {
  const AttentionScene scene({4, 1, 16, 16, DType::kBF16},
                             {{.length = 300, .rotations = 2}, {.length = 9}, {.length = 150}});
  const DecodeResult listed = decode(scene);
  const DecodeResult alone = decode(scene, {.in_order = true});
  EXPECT_EQ(simt::take_report_text(), "");
  EXPECT_EQ(alone.out, listed.out);
  EXPECT_EQ(alone.lse, listed.lse);
}

TEST(CudaDecode, EntriesThatLeftTheWindowChangeNoBit) {
  for (const int32_t block : {1, 4, 16}) {
    AttentionScene scene({4, 1, 16, block, DType::kBF16},
                         {{.length = 700, .visibility = {0, 330}},
                          {.length = 691, .visibility = {5, 300}, .rotations = 2},
                          {.length = 500, .visibility = {16, 200}, .rotations = 3}});
    const DecodeResult all = decode(scene);
    EXPECT_GT(scene.drop_passed(), 40 / block);
    const DecodeResult left = decode(scene);
    EXPECT_EQ(left.out, all.out) << block;
    EXPECT_EQ(left.lse, all.lse) << block;
  }
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaDecode, RefusesWhatItCannotDo) {
  const AttentionScene scene({4, 2, 16, 16, DType::kF16}, {{.length = 20}});
  const AttentionScene::Device device(scene);
  const simt::DeviceBuffer<int32_t> zero(std::vector<int32_t>{0});
  const DecodeList list{zero.data(), zero.data(), 1, 2, 1};
  const auto refused = [&](const std::function<void(AttentionArgs&)>& change) {
    AttentionArgs args = device.args;
    change(args);
    return decode_attention(args, list, nullptr) == kInvalid;
  };
  const auto of_pages = [&](const PageGeometry& geometry, DType type) {
    return refused([&](AttentionArgs& a) { a.kv = {device.pool.data(), geometry, type}; });
  };
  EXPECT_TRUE(of_pages({2, 16, 17, 2}, DType::kF16));
  EXPECT_TRUE(of_pages({2, 16, 258, 2}, DType::kF16));
  EXPECT_TRUE(of_pages({2, 16, 14, 2}, DType::kF16));
  EXPECT_TRUE(of_pages({2, 0, 16, 2}, DType::kF16));
  EXPECT_TRUE(of_pages({2, 16, 16, 4}, DType::kF16));
  EXPECT_TRUE(of_pages({2, 16, 16, 2}, DType::kQ8_0));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.n_heads = 3; }));
  EXPECT_EQ(decode_attention(device.args, {zero.data(), zero.data(), 1, 100, 1}, nullptr), kInvalid)
      << "no workspace";
  EXPECT_EQ(decode_attention(device.args, {zero.data(), zero.data(), 0, 2, 1}, nullptr), 0);
  EXPECT_EQ(decode_attention(device.args, {zero.data(), zero.data(), 1, 2, 0}, nullptr), kInvalid);
}

TEST(CudaDecode, NeedsEachOfItsSites) {
  // Two splits, two rotations, a dimension that needs padding; then many tiles per warp, so that
  // stages are used again.
  const AttentionScene splits({5, 1, 18, 16, DType::kBF16},
                              {{.length = 140, .rotations = 2}, {.length = 9}});
  const AttentionScene stages({4, 1, 32, 512, DType::kF32}, {{.length = 180}});
  const Expected of_splits = splits.expected();
  const Expected of_stages = stages.expected();
  EXPECT_THAT(simt::surviving_mutants([&] {
                return wrong(stages, decode(stages), of_stages).empty() &&
                       wrong(splits, decode(splits), of_splits).empty();
              }),
              testing::IsEmpty());
}

}  // namespace
}  // namespace paddock::cuda::test
