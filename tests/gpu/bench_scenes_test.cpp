// The scenes that gpu_bench times, small and under the harness: launchers take them, no access is
// reported, and what comes out is right.
#include <gtest/gtest.h>

#include <set>

#include "gpu/scene.h"
#include "support/random_blocks.h"

namespace paddock::bench {
namespace {

constexpr Turns kTwoSets{1 << 30, 2};

void expect_right(const std::string& what, const Scene& scene, int sets = 2) {
  SCOPED_TRACE(what);
  EXPECT_EQ(scene.sets, sets);
  EXPECT_GT(scene.work.amount, 0);
  for (int set = 0; set < scene.sets; ++set) EXPECT_EQ(scene.launch(set, nullptr), 0) << set;
  EXPECT_EQ(simt::take_report_text(), "");
  EXPECT_LE(scene.error(), scene.room);
  EXPECT_EQ(simt::take_report_text(), "");
}

TEST(BenchScenes, Decode) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    for (const int32_t dim : {64, 128}) {
      expect_right("plain", decode_scene({8, 2, dim, 16, type, 2, 300}, kTwoSets));
    }
  }
  expect_right("blocks of 8", decode_scene({4, 1, 64, 8, DType::kBF16, 1, 77}, kTwoSets));
  expect_right("blocks of 64", decode_scene({4, 1, 64, 64, DType::kBF16, 3, 129}, kTwoSets));
  expect_right("sinks", decode_scene({8, 2, 64, 16, DType::kBF16, 2, 200, 1, {4, 60}}, kTwoSets));
}

TEST(BenchScenes, WindowsListOnlyWhatIsSeen) {
  const Scene scene = decode_scene({8, 2, 64, 16, DType::kBF16, 2, 500, 1, {4, 60}}, {});
  EXPECT_EQ(scene.work.amount, 2.0 * 2 * (4 + 60) * 2 * 64 * 2);
  expect_right("one set", scene, 1);
}

TEST(BenchScenes, Prefill) {
  for (const int32_t dim : {64, 128}) {
    const Scene scene = prefill_scene({4, 2, dim, 16, DType::kBF16, 1, 100, 100}, kTwoSets);
    EXPECT_EQ(scene.work.amount, 4.0 * dim * 4 * (100 * 101 / 2));
    expect_right("whole", scene);
  }
  expect_right("f16", prefill_scene({2, 1, 64, 16, DType::kF16, 2, 70, 70}, kTwoSets));
  expect_right("chunk", prefill_scene({2, 1, 64, 16, DType::kBF16, 1, 200, 70}, kTwoSets));
  expect_right("sinks", prefill_scene({2, 1, 64, 16, DType::kBF16, 1, 200, 40, {4, 60}}, kTwoSets));
}

TEST(BenchScenes, Masses) {
  expect_right("decode", mass_scene({8, 2, 64, 16, DType::kBF16, 2, 300}, kTwoSets));
  expect_right("chunk", mass_scene({4, 2, 64, 16, DType::kBF16, 1, 150, 40}, kTwoSets));
}

TEST(BenchScenes, Products) {
  for (const DType type : kDTypes) {
    const std::string name = dtype_traits(type).name;
    expect_right("dequantize " + name, dequantize_scene({type, 7, 512}, kTwoSets));
    if (!cuda::gemv_supports(type)) continue;
    for (const int32_t tokens : {1, 8}) {
      expect_right("gemv " + name, gemv_scene({type, 33, 512, tokens}, kTwoSets));
      if (!cuda::tensor_gemv_supports(type, 512)) continue;
      expect_right("tensor_gemv " + name, tensor_gemv_scene({type, 33, 512, tokens}, kTwoSets));
    }
  }
  expect_right("embed", embed_scene({DType::kQ4_0, 99, 256, 5}, kTwoSets));
}

TEST(BenchScenes, SmallOperations) {
  expect_right("rms_norm", rms_norm_scene(3, 300, kTwoSets));
  expect_right("swiglu", swiglu_scene(3, 300, kTwoSets));
  expect_right("to_bf16", to_bf16_scene(3, 300, kTwoSets));
  expect_right("angles", angles_scene(5, 32, kTwoSets));
  expect_right("rope_store", rope_store_scene(40, {2, 16, 64, DType::kBF16}, false, kTwoSets));
  expect_right("scattered", rope_store_scene(4, {2, 16, 64, DType::kF16}, true, kTwoSets));
  expect_right("change_tables", change_tables_scene(50, 1000, kTwoSets));
}

TEST(BenchScenes, Sampling) {
  expect_right("greedy", sample_scene(3, 5000, {0, 0, 1, 0, 1, 1}, kTwoSets));
  expect_right("all", sample_scene(2, 5000, {1, 40, 0.95F, 0.05F, 1, 1}, kTwoSets));
}

TEST(BenchScenes, TheListNamesEachCaseOnce) {
  const std::vector<Case> cases = all_cases([](const cuda::GemmArgs&, cuda::Stream) { return 0; });
  std::set<std::string> names;
  for (const Case& c : cases) {
    EXPECT_TRUE(names.insert(c.kernel + " " + c.shape).second) << c.shape;
    EXPECT_EQ(c.shape.find(','), std::string::npos) << "in CSV";
  }
  EXPECT_GT(cases.size(), 200U);
}

}  // namespace
}  // namespace paddock::bench
