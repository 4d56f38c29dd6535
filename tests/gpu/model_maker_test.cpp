// Models that gpu_model writes: they load, run on the CPU and give sensible logits.
#include "gpu/model_maker.h"

#include <gtest/gtest.h>
#include <paddock/paddock.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

#include "support/golden.h"
#include "support/random_blocks.h"
#include "support/temporary_folder.h"

namespace paddock::bench {
namespace {

std::vector<TokenId> some_tokens() {
  std::vector<TokenId> tokens;
  for (int i = 0; i < 20; ++i) tokens.push_back(i * 37 % 512);
  return tokens;
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(ModelMaker, EveryTypeGivesFiniteLogitsOfSensibleSize) {
  const test::TemporaryFolder folder;
  for (const DType type : kDTypes) {
    SCOPED_TRACE(dtype_traits(type).name);
    const std::string path = folder.path() + "/tiny.gguf";
    make_model(path, shape_named("tiny"), type, 3);
    Engine engine(Model::load(path), test::reference_options());
    const test::Matrix logits = test::all_logits(engine, some_tokens());
    ASSERT_EQ(logits.cols, 512);
    float largest = 0;
    for (const float x : logits.values) {
      ASSERT_TRUE(std::isfinite(x));
      largest = std::max(largest, std::abs(x));
    }
    EXPECT_GT(largest, 0.5F);
    EXPECT_LT(largest, 50.0F);
  }
}

TEST(ModelMaker, SameSeedSameBytes) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/tiny.gguf";
  std::vector<std::string> files;
  for (const uint64_t seed : {1, 1, 2}) {
    make_model(path, shape_named("tiny"), DType::kQ8_0, seed);
    files.push_back(bytes_of(path));
  }
  EXPECT_TRUE(files[0] == files[1]);
  EXPECT_FALSE(files[0] == files[2]);
}

TEST(ModelMaker, TruncatingKeepsTheFirstLayers) {
  const test::TemporaryFolder folder;
  const std::string whole = folder.path() + "/whole.gguf";
  const std::string part = folder.path() + "/part.gguf";
  ModelShape shape = shape_named("tiny");
  make_model(whole, shape, DType::kQ4_0, 5);
  truncate_model(whole, 1, part);
  EXPECT_EQ(Model::load(part)->info().n_layers, 1);
  // All layers: the same model, byte for byte in what it computes.
  truncate_model(whole, 2, folder.path() + "/same.gguf");
  std::vector<std::vector<float>> logits;
  for (const char* name : {"/whole.gguf", "/same.gguf", "/part.gguf"}) {
    Engine engine(Model::load(folder.path() + name), test::reference_options());
    logits.push_back(test::all_logits(engine, some_tokens()).values);
  }
  EXPECT_EQ(logits[0], logits[1]);
  EXPECT_NE(logits[0], logits[2]);
  // Some tokens: the first rows of both matrices, and their logits.
  truncate_model(whole, 2, part, 500);
  const auto model = Model::load(part);
  EXPECT_EQ(model->info().vocab_size, 500);
  Engine engine(model, test::reference_options());
  const std::vector<TokenId> few = {3, 499, 77};
  const test::Matrix some = test::all_logits(engine, few);
  Engine all(Model::load(whole), test::reference_options());
  const test::Matrix more = test::all_logits(all, few);
  for (int64_t row = 0; row < 3; ++row) {
    EXPECT_TRUE(std::equal(some.row(row), some.row(row) + 500, more.row(row))) << row;
  }
  EXPECT_THROW(truncate_model(whole, 0, part), std::runtime_error);
  EXPECT_THROW(truncate_model(whole, 3, part), std::runtime_error);
  EXPECT_THROW(truncate_model("/nowhere", 1, part), Error);
}

TEST(ModelMaker, FilesThatCannotBeWrittenAreNamed) {
  try {
    make_model("/nowhere/tiny.gguf", shape_named("tiny"), DType::kBF16, 1);
    FAIL() << "no error was thrown";
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find("/nowhere/tiny.gguf"), std::string::npos) << e.what();
  }
  EXPECT_THROW(shape_named("2B"), std::runtime_error);
}

/// A real file, with a tokenizer and mixed types.
TEST(ModelMaker, TruncatesARealModel) {
  PADDOCK_REAL_FILE(path, "PADDOCK_TEST_MODEL");
  const test::TemporaryFolder folder;
  const std::string part = folder.path() + "/part.gguf";
  truncate_model(path, 4, part, 0);
  const auto model = Model::load(part);
  EXPECT_EQ(model->info().n_layers, 4);
  EXPECT_GT(model->tokenizer()->vocab_size(), 0);
  Engine engine(model, test::reference_options());
  for (const float x : test::all_logits(engine, some_tokens()).values)
    ASSERT_TRUE(std::isfinite(x));
}

}  // namespace
}  // namespace paddock::bench
