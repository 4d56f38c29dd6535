// Decode attention under the SIMT harness, on CUDA cores and on tensor cores, against float64 and
// the CPU's reference. On tensor cores float64 rounds queries where the kernel does: what is left
// are float32's errors and the rounding of weights.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda_decode_run.h"

namespace paddock::cuda::test {
namespace {

struct Shape {
  int32_t heads, kv_heads, head_dim, block;
  bool interleaved;
};

/// One of the two kernels, and what is its own of tests that both pass.
struct Kernel {
  const char* name;
  bool tensor_cores;
  std::vector<DType> types;  // of the cache
  DType widest;              // of them
  int32_t heads;             // where they share one KV head
  std::vector<Shape> shapes;
};

DecodeResult on_tensor_cores(const AttentionScene& scene, DecodeOptions options = {}) {
  options.tensor_cores = true;
  return decode(scene, options);
}

class CudaDecode : public testing::TestWithParam<Kernel> {
 protected:
  static DecodeResult run(const AttentionScene& scene, const DecodeOptions& options = {}) {
    return GetParam().tensor_cores ? on_tensor_cores(scene, options) : decode(scene, options);
  }
  static Expected expected(const AttentionScene& scene) {
    return scene.expected(GetParam().tensor_cores);
  }
  static void expect_right(const AttentionScene& scene, const std::string& name) {
    const DecodeResult result = run(scene);
    EXPECT_EQ(simt::take_report_text(), "") << name;
    EXPECT_EQ(wrong(scene, result, expected(scene)), "") << name;
  }
};

const Kernel kCudaCores{.name = "cuda_cores",
                        .tensor_cores = false,
                        .types = {DType::kF32, DType::kF16, DType::kBF16},
                        .widest = DType::kF32,
                        .heads = 4,
                        .shapes = {{4, 1, 64, 16, false},
                                   {8, 2, 128, 16, true},
                                   {8, 1, 80, 8, false},
                                   {3, 3, 96, 32, false},
                                   {7, 1, 16, 5, true},
                                   {9, 1, 36, 1, false},
                                   {2, 1, 18, 3, true},
                                   {5, 1, 256, 64, false},
                                   {2, 2, 200, 7, true},
                                   {16, 1, 32, 64, false},
                                   {1, 1, 130, 12, false},
                                   {12, 2, 22, 9, true}}};
const Kernel kTensorCores{.name = "tensor_cores",
                          .tensor_cores = true,
                          .types = {DType::kF16, DType::kBF16},
                          .widest = DType::kBF16,
                          .heads = 12,
                          .shapes = {{4, 1, 128, 16, false},
                                     {8, 2, 64, 16, true},
                                     {8, 1, 80, 8, false},
                                     {3, 3, 96, 64, false},
                                     {6, 2, 16, 1, true},
                                     {16, 1, 32, 8, true},
                                     {9, 1, 48, 5, false},
                                     {7, 1, 112, 512, true},
                                     {16, 2, 128, 1, true},
                                     {1, 1, 64, 64, false},
                                     {24, 2, 16, 33, false}}};
INSTANTIATE_TEST_SUITE_P(On, CudaDecode, testing::Values(kCudaCores, kTensorCores),
                         [](const auto& kernel) { return std::string(kernel.param.name); });

TEST_P(CudaDecode, IsRightForEveryShape) {
  for (const Shape& c : GetParam().shapes) {
    for (const DType type : GetParam().types) {
      const AttentionScene scene({c.heads, c.kv_heads, c.head_dim, c.block, type, c.interleaved},
                                 {{.length = 37}, {.length = 150, .rotations = 2}});
      expect_right(scene, fmt::format("heads {}/{}, dim {}, block {}, {}", c.heads, c.kv_heads,
                                      c.head_dim, c.block, dtype_traits(type).name));
    }
  }
}

TEST_P(CudaDecode, SeesWhatTablesAndRulesSay) {
  for (const int32_t block : {1, 4, 16, 33, 512}) {
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

TEST_P(CudaDecode, SplitsLongTablesAndLargeBlocks) {
  expect_right(AttentionScene({4, 1, 16, 16, DType::kF16}, {{.length = 4500}}), "long");
  expect_right(AttentionScene({1, 1, 16, 4096, DType::kF16}, {{.length = 4100}}), "large blocks");
  // More entries than the splits of a chunk's early tokens could hold: the last one takes the rest.
  expect_right(
      AttentionScene({8, 8, 16, 1, GetParam().widest},
                     {{.length = 2300, .n_query = 2, .visibility = {1, 1500}, .rotations = 2}}),
      "long with a window");
}

TEST_P(CudaDecode, GivesZerosToQueriesThatSeeNothing) {
  // The first three queries stand before every entry that is left.
  for (const int32_t length : {20, 300}) {
    const AttentionScene scene({4, 1, 16, 8, DType::kF16},
                               {{.length = length, .visibility = {0, 1}, .hole_every = 1},
                                {.length = length, .n_query = 1}});
    EXPECT_EQ(expected(scene).lse[0], -INFINITY);
    expect_right(scene, "nothing");
  }
}

TEST_P(CudaDecode, ATokenDoesNotDependOnTheBatch) {
  const int32_t heads = GetParam().heads;
  const AttentionScene scene({heads, 1, 16, 16, DType::kBF16},
                             {{.length = 100, .n_query = 2, .rotations = 2},
                              {.length = 400, .n_query = 2, .rotations = 2},
                              {.length = 9}});
  const DecodeResult all = run(scene);
  EXPECT_EQ(run(scene, {.max_entries = 5000}).out, all.out);  // room for longer tables
  for (const int32_t at_once : {1, 3, 16}) {  // splits after one another in fewer blocks
    EXPECT_EQ(run(scene, {.blocks_at_once = at_once}).out, all.out) << at_once;
  }
  for (const AttentionSequence& s : scene.sequences()) {
    const DecodeResult one = run(scene, {.max_entries = s.n_entries, .only = s.first_token});
    const auto row = static_cast<size_t>(heads) * 16;
    const auto first = s.first_token * row;
    for (size_t i = first; i < first + row; ++i) ASSERT_EQ(one.out[i], all.out[i]) << i;
    for (int32_t h = 0; h < heads; ++h) {
      ASSERT_EQ(one.lse[s.first_token * heads + h], all.lse[s.first_token * heads + h]);
    }
  }
  simt::for_each_schedule([&](const std::string& schedule) {
    const DecodeResult again = run(scene);
    EXPECT_EQ(again.out, all.out) << schedule;
    EXPECT_EQ(again.lse, all.lse) << schedule;
  });
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST_P(CudaDecode, TakesSequencesOfOneTokenWithoutAList) {
  const AttentionScene scene({4, 1, 16, 16, DType::kBF16},
                             {{.length = 300, .rotations = 2}, {.length = 9}, {.length = 150}});
  const DecodeResult listed = run(scene);
  const DecodeResult alone = run(scene, {.in_order = true});
  EXPECT_EQ(simt::take_report_text(), "");
  EXPECT_EQ(alone.out, listed.out);
  EXPECT_EQ(alone.lse, listed.lse);
}

TEST_P(CudaDecode, EntriesThatLeftTheWindowChangeNoBit) {
  for (const int32_t block : {1, 4, 16}) {
    AttentionScene scene({4, 1, 16, block, DType::kBF16},
                         {{.length = 700, .visibility = {0, 330}},
                          {.length = 691, .visibility = {5, 300}, .rotations = 2},
                          {.length = 500, .visibility = {16, 200}, .rotations = 3}});
    const DecodeResult all = run(scene);
    EXPECT_GT(scene.drop_passed(), 40 / block);
    const DecodeResult left = run(scene);
    EXPECT_EQ(left.out, all.out) << block;
    EXPECT_EQ(left.lse, all.lse) << block;
  }
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaDecodeCores, EqualsTheReferenceOnTheCpu) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
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

TEST(CudaDecodeCores, RefusesWhatItCannotDo) {
  const AttentionScene scene({4, 2, 16, 16, DType::kF16}, {{.length = 20}});
  const AttentionScene::Device device(scene);
  const simt::DeviceBuffer<int32_t> zero(std::vector<int32_t>{0});
  const DecodeList list{zero.data(), zero.data(), 1, 2, 1};
  const auto refused = [&](const std::function<void(AttentionArgs&)>& change) {
    AttentionArgs args = device.args;
    change(args);
    return decode_attention(args, list, nullptr) == kInvalid;
  };
  const auto of_pages = [&](const PageGeometry& geometry) {
    return refused([&](AttentionArgs& a) { a.kv = {device.pool.data(), geometry}; });
  };
  EXPECT_TRUE(of_pages({2, 16, 17, DType::kF16}));
  EXPECT_TRUE(of_pages({2, 16, 258, DType::kF16}));
  EXPECT_TRUE(of_pages({2, 16, 14, DType::kF16}));
  EXPECT_TRUE(of_pages({2, 0, 16, DType::kF16}));
  EXPECT_TRUE(of_pages({2, 16, 16, DType::kQ8_0}));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.n_heads = 3; }));
  EXPECT_EQ(decode_attention(device.args, {zero.data(), zero.data(), 1, 100, 1}, nullptr), kInvalid)
      << "no workspace";
  EXPECT_EQ(decode_attention(device.args, {zero.data(), zero.data(), 0, 2, 1}, nullptr), 0);
  EXPECT_EQ(decode_attention(device.args, {zero.data(), zero.data(), 1, 2, 0}, nullptr), kInvalid);
}

TEST(CudaDecodeCores, NeedsEachOfItsSites) {
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

TEST(CudaDecodeTensor, BlocksMayTakeSeveralSplits) {
  // Splits of which some or all warps, or the query itself, see nothing; fewer splits than pieces.
  for (const int32_t block : {1, 16, 48}) {
    const AttentionScene scene(
        {4, 1, 64, block, DType::kBF16},
        {{.length = 900, .rotations = 2},
         {.length = 700, .visibility = {150, 260}, .hole_every = 2, .rotations = 3},
         {.length = 40},
         {.length = 500, .visibility = {0, 1}},
         {.length = 1100, .doubled = true}});
    const DecodeResult spread = on_tensor_cores(scene, {.in_order = true});
    EXPECT_EQ(wrong(scene, spread, scene.expected(true)), "") << block;
    for (const int32_t at_once : {1, 9, 20}) {
      const DecodeResult few = on_tensor_cores(scene, {.blocks_at_once = at_once});
      EXPECT_EQ(few.out, spread.out) << block << " " << at_once;
      EXPECT_EQ(few.lse, spread.lse) << block << " " << at_once;
    }
  }
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(CudaDecodeTensor, LeavesToTheOtherKernelWhatItCannotDo) {
  for (const SceneShape& shape :
       {SceneShape{4, 1, 16, 16, DType::kF32}, SceneShape{4, 1, 24, 16, DType::kBF16},
        SceneShape{4, 1, 144, 16, DType::kF16}}) {
    const AttentionScene scene(shape, {{.length = 200}});
    EXPECT_EQ(on_tensor_cores(scene).out, decode(scene).out) << shape.head_dim;
  }
  const AttentionScene scene({4, 1, 16, 16, DType::kF16}, {{.length = 200}});
  EXPECT_NE(on_tensor_cores(scene).out, decode(scene).out);
  const AttentionScene::Device device(scene);
  const simt::DeviceBuffer<int32_t> zero(std::vector<int32_t>{0});
  const simt::DeviceBuffer<float> workspace(
      static_cast<size_t>(decode_workspace_floats(4, scene.geometry(), 1, 13)));
  AttentionArgs args = device.args;
  args.tensor_cores = true;
  args.workspace = workspace.data();
  EXPECT_EQ(decode_attention(args, {zero.data(), zero.data(), 1, 13, 1}, nullptr), kInvalid)
      << "no arrivals";
}

TEST(CudaDecodeTensor, NeedsEachOfItsSites) {
  // Splits, rotations, a group of heads that is not full; stages that are used again.
  const AttentionScene splits({9, 1, 16, 16, DType::kBF16},
                              {{.length = 140, .rotations = 2}, {.length = 9}});
  const AttentionScene stages({4, 1, 128, 128, DType::kF16}, {{.length = 250}});
  const Expected of_splits = splits.expected(true);
  const Expected of_stages = stages.expected(true);
  EXPECT_THAT(
      simt::surviving_mutants([&] {
        return wrong(stages, on_tensor_cores(stages, {.blocks_at_once = 1}), of_stages).empty() &&
               wrong(splits, on_tensor_cores(splits), of_splits).empty();
      }),
      testing::IsEmpty());
  EXPECT_EQ(simt::sites_met().size(), 12U);
}

}  // namespace
}  // namespace paddock::cuda::test
