// LoadOptions::rope: models whose scaling is given by the host. References: the stored models whose
// files ask for it, which are held against transformers elsewhere.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/config.h"
#include "support/golden.h"
#include "support/model_rows.h"

namespace paddock::test {
namespace {

namespace fs = std::filesystem;

/// Logits after every stored token.
std::vector<float> logits_of(const std::string& path, const RopeOptions& rope) {
  LoadOptions options;
  options.rope = rope;
  EngineOptions whole = reference_options();
  whole.context = 64;
  Engine engine(Model::load(path, options), whole);
  std::vector<float> all;
  engine.forward(golden_tokens(), [&](int64_t, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
    return true;
  });
  return all;
}

/// The stored model, with its configuration as `edit` leaves it.
void copy_model(const std::string& name, const TemporaryFolder& folder,
                const std::function<void(nlohmann::json&)>& edit) {
  for (const auto& entry : fs::directory_iterator(golden(name))) {
    fs::copy(entry.path(), fs::path(folder.path()) / entry.path().filename());
  }
  const std::string path = folder.path() + "/config.json";
  auto config = nlohmann::json::parse(std::ifstream(path));
  edit(config);
  std::ofstream(path) << config.dump();
}

/// The same without a word about scaling.
void copy_plain(const std::string& name, const TemporaryFolder& folder, int64_t context) {
  copy_model(name, folder, [&](nlohmann::json& config) {
    config["max_position_embeddings"] = context;
    config["rope_theta"] = 10000.0;
    config.erase("rope_scaling");
    config.erase("rope_parameters");
  });
}

LlamaConfig plain_config(int64_t context) {
  const TemporaryFolder folder;
  copy_plain("gqa8-yarn", folder, context);
  std::ifstream file(folder.path() + "/config.json");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return config_from_json(std::as_bytes(std::span(text)), {});
}

struct Case {
  const char* name;
  RopeOptions options;
  int64_t context;  // of the file without scaling
};
const Case kCases[] = {{"gqa2-linear", {RopeScaling::kLinear, 4, 0}, 32},
                       {"gqa4-llama3", {RopeScaling::kLlama3, 8, 32}, 100},
                       {"gqa8-yarn", {RopeScaling::kYarn, 4, 0}, 32}};

TEST(RopeOptions, AHostsScalingIsTheFilesToTheBit) {
  for (const Case& c : kCases) {
    const TemporaryFolder folder;
    copy_plain(c.name, folder, c.context);
    const auto asked = logits_of(golden(c.name), {});
    EXPECT_EQ(logits_of(folder.path(), c.options), asked) << c.name;
    EXPECT_NE(logits_of(folder.path(), {}), asked) << c.name;
  }
}

TEST(RopeOptions, NoneTakesTheFilesScalingAway) {
  for (const Case& c : kCases) {
    const TemporaryFolder folder;
    copy_plain(c.name, folder, c.context);
    EXPECT_EQ(logits_of(golden(c.name), {.scaling = RopeScaling::kNone}),
              logits_of(folder.path(), {}))
        << c.name;
  }
}

TEST(RopeOptions, TheContextIsTheOriginalTimesTheFactor) {
  const auto context = [](const std::string& name, const RopeOptions& rope) {
    LoadOptions options;
    options.rope = rope;
    return Model::load(golden(name), options)->info().context_length;
  };
  EXPECT_EQ(context("gqa1-default", {RopeScaling::kYarn, 2.5, 100}), 250);
  // Of the file: 128 positions, by a factor of 4 from 32; and original ones that it names.
  EXPECT_EQ(context("gqa2-linear", {.factor = 2}), 64);
  EXPECT_EQ(context("gqa8-yarn", {.factor = 16}), 512);
  EXPECT_EQ(context("gqa4-llama3", {.scaling = RopeScaling::kNone}), 32);
  EXPECT_EQ(context("gqa4-llama3", {.original_context = 64}), 512) << "the file's factor is 8";
  EXPECT_EQ(context("gqa4-llama3", {}), 128) << "the file's own word";
}

TEST(RopeOptions, AnotherFactorKeepsWhatElseTheKindHas) {
  LlamaConfig config = plain_config(32);
  config.rope.kind = RopeConfig::Kind::kYarn;
  config.rope.original_context = 32;
  config.rope.factor = 4;
  config.rope.beta_fast = 16;
  config.rope.truncate = false;
  config.rope.attention_factor = 3;
  RopeConfig expected = config.rope;
  override_rope(config, {.factor = 8});
  expected.factor = 8;
  expected.attention_factor = 0;  // that of the new factor
  EXPECT_EQ(config.rope, expected);
  // Another kind has its own; the base and where pairs lie are the model's.
  config.rope.theta = 500;
  config.rope.interleaved = true;
  override_rope(config, {RopeScaling::kLlama3, 2, 0});
  EXPECT_EQ(config.rope.beta_fast, RopeConfig().beta_fast);
  EXPECT_EQ(config.rope.theta, 500);
  EXPECT_TRUE(config.rope.interleaved);
  EXPECT_EQ(config.rope.low_freq_factor, 1);
  EXPECT_EQ(config.rope.high_freq_factor, 4);
}

TEST(RopeOptions, DivisorsOfAFileGiveWay) {
  LlamaConfig config = plain_config(128);
  config.rope.divisors.assign(static_cast<size_t>(config.head_dim / 2), 2.0F);
  const auto before = config;
  EXPECT_TRUE(has(refusal_of([&] {
                    override_rope(config, {RopeScaling::kYarn, 2, 0});
                  }),
                  {"rope_freqs", "rope.original_context"}));
  EXPECT_EQ(config.rope, before.rope);
  override_rope(config, {RopeScaling::kYarn, 2, 64});
  EXPECT_TRUE(config.rope.divisors.empty());
  EXPECT_EQ(config.context_length, 128);
}

TEST(RopeOptions, WhatIsMissingOrWrongIsNamed) {
  const auto refuses = [](const RopeOptions& options, std::initializer_list<const char*> parts) {
    LlamaConfig config = plain_config(128);
    const LlamaConfig before = config;
    const std::string said = refusal_of([&] { override_rope(config, options); });
    EXPECT_TRUE(has(said, parts));
    EXPECT_EQ(config.rope, before.rope);
    EXPECT_EQ(config.context_length, before.context_length);
  };
  refuses({.factor = 2}, {"no kind", "rope.scaling"});
  refuses({.original_context = 64}, {"no kind", "rope.scaling"});
  refuses({.scaling = RopeScaling::kYarn}, {"yarn", "rope.factor"});
  refuses({RopeScaling::kNone, 2, 0}, {"none", "rope.factor 2"});
  refuses({RopeScaling::kLinear, 0.5, 0}, {"rope.factor is 0.5", "from 1"});
  refuses({RopeScaling::kLinear, -1, 0}, {"rope.factor is -1", "from 1"});
  refuses({RopeScaling::kLinear, std::nan(""), 0}, {"rope.factor is nan"});
  refuses({RopeScaling::kLinear, 2, -1}, {"rope.original_context is -1"});
  refuses({static_cast<RopeScaling>(9), 2, 0}, {"rope.scaling is 9"});
  refuses({RopeScaling::kLinear, 1e9, 0}, {"rope.factor 1000000000", "at most 2147483647"});
}

TEST(RopeOptions, KindsHaveNames) {
  const std::pair<RopeScaling, std::string> names[] = {{RopeScaling::kFile, "file"},
                                                       {RopeScaling::kNone, "none"},
                                                       {RopeScaling::kLinear, "linear"},
                                                       {RopeScaling::kLlama3, "llama3"},
                                                       {RopeScaling::kYarn, "yarn"}};
  for (const auto& [scaling, name] : names) EXPECT_EQ(rope_scaling_name(scaling), name);
}

}  // namespace
}  // namespace paddock::test
