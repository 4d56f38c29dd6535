// What a plan says is what engines take, to the byte; and what it says fits does.
#include "paddock/plan.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "engine/engine_impl.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "support/small_requests.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

namespace fs = std::filesystem;

/// Of a plan and of the engine that is then made.
void expect_equal(const std::string& path, const EngineOptions& options) {
  SCOPED_TRACE(path + " under " + options.kv.policy);
  const auto model = Model::load(path);
  const Engine engine(parts(model, options));
  const EnginePlan plan = plan_of(path, options);
  const KvStats stats = engine.kv_stats();
  EXPECT_EQ(plan.total_bytes, engine.memory_bytes());
  EXPECT_EQ(static_cast<int64_t>(plan.pool_bytes), stats.pool_bytes);
  EXPECT_EQ(plan.pool_pages, stats.pool_pages);
  EXPECT_EQ(static_cast<int64_t>(plan.page_bytes), stats.page_bytes);
  EXPECT_EQ(plan.weights_bytes + plan.activation_bytes + plan.table_bytes + plan.pool_bytes,
            plan.total_bytes);
  ASSERT_EQ(plan.kv_bytes_per_token_layer.size(), stats.layers.size());
  for (const uint64_t bytes : plan.kv_bytes_per_token_layer) {
    EXPECT_EQ(static_cast<int64_t>(bytes) * stats.block_size, stats.page_bytes);
  }
  EXPECT_EQ(plan.kv_bytes_per_token,
            std::accumulate(plan.kv_bytes_per_token_layer.begin(),
                            plan.kv_bytes_per_token_layer.end(), uint64_t{0}));
  EXPECT_EQ(plan.options.context, engine.options().context);
  EXPECT_EQ(plan.trained_context, model->info().context_length);
  EXPECT_TRUE(plan.estimated.empty()) << plan.estimated;
}

EngineOptions planned(const std::string& policy, int64_t context, int32_t users) {
  EngineOptions options;
  options.threads = 2;
  options.kv.policy = policy;
  options.context = context;
  options.max_sequences = users;
  return options;
}

TEST(Plan, SaysWhatEnginesTake) {
  for (const char* path : {"gqa1-Q8_0.gguf", "gqa1-Q4_0.gguf", "gqa4-llama3.gguf", "gqa1-default",
                           "gqa8-yarn", "wide-head"}) {
    for (const char* policy : {"full", "window:20", "sink:4+20", "0=full,*=sink:2+30",
                               "h2o:32@every:8", "h2o:32@every:8@compact", "tova:24", "knorm:40",
                               "lru", "h2o@compact", "cake:h2o:64@every:16"}) {
      expect_equal(golden(path), planned(policy, 128, 2));
    }
  }
}

TEST(Plan, HeedsEveryOption) {
  const std::string path = golden("gqa4-llama3.gguf");
  EngineOptions base = planned("h2o:48@every:16", 100, 3);
  base.kv.block_size = 8;
  base.batch_size = 32;
  expect_equal(path, base);
  for (const Precision precision : exact_precisions()) {
    for (const KvType type : {KvType::kAuto, KvType::kF32, KvType::kF16, KvType::kBF16}) {
      EngineOptions options = base;
      options.precision = precision;
      options.kv.type = type;
      expect_equal(path, options);
    }
  }
  for (const std::string& isa : isas()) {
    EngineOptions options = base;
    options.isa = isa;
    try {
      Engine(parts(Model::load(path), options));
    } catch (const Error&) {
      continue;  // not this machine's
    }
    expect_equal(path, options);
  }
  for (const int32_t n : {1, 3, 64, 700}) {
    EngineOptions options = base;
    options.batch_size = n;
    options.max_sequences = std::min(n, 64);
    options.threads = n % 4 + 1;
    options.kv.block_size = n % 7 + 2;
    expect_equal(path, options);
  }
  EngineOptions options = planned("full", 0, 1);
  expect_equal(path, options);
  options.kv.budget_bytes = 1 << 20;
  expect_equal(path, options);
}

// ---- what is read

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Plan, TheBeginningOfAGgufFileWillDo) {
  for (const char* name : {"gqa1-Q8_0.gguf", "gqa4-llama3.gguf"}) {
    const std::string path = golden(name);
    const MappedFile file(path);
    const gguf::Header header = gguf::parse(file.bytes());
    const std::string bytes = bytes_of(path);
    const TemporaryFolder folder;
    const EngineOptions options = planned("full", 64, 1);
    const EnginePlan whole = plan_of(path, options);
    for (const uint64_t end : {header.data_offset, header.data_offset + 100, bytes.size() - 1}) {
      const std::string cut = folder.write("cut.gguf", bytes.substr(0, end));
      const EnginePlan plan = plan_of(cut, options);
      EXPECT_EQ(plan.total_bytes, whole.total_bytes);
      EXPECT_EQ(plan.weights_read_bytes, whole.weights_read_bytes);
      EXPECT_EQ(plan.warnings, whole.warnings);
      EXPECT_THROW(Model::load(cut), Error);
    }
    const std::string short_of_it = folder.write("less.gguf", bytes.substr(0, 200));
    EXPECT_THROW(plan_of(short_of_it, options), Error);
  }
}

TEST(Plan, OfAConfigurationAloneItIsAnEstimate) {
  const TemporaryFolder folder;
  const std::string config = bytes_of(golden("gqa1-default/config.json"));
  const EngineOptions options = planned("full", 64, 1);
  const EnginePlan whole = plan_of(golden("gqa1-default"), options);
  const EnginePlan file = plan_of(folder.write("config.json", config), options);
  EXPECT_FALSE(file.estimated.empty());
  EXPECT_EQ(file.pool_bytes, whole.pool_bytes);
  EXPECT_EQ(file.activation_bytes, whole.activation_bytes);
  EXPECT_EQ(file.kv_bytes_per_token, whole.kv_bytes_per_token);
  EXPECT_EQ(plan_of(folder.path(), options).total_bytes, file.total_bytes);
  // All of the folder's tensors have the type that its configuration names.
  EXPECT_EQ(file.total_bytes, whole.total_bytes);
  EXPECT_EQ(file.weights_read_bytes, whole.weights_read_bytes);
}

uint64_t total_of_file(const EngineOptions& options) {
  return plan_of(golden("gqa1-Q8_0.gguf"), options).total_bytes;
}

TEST(Plan, OfAConfigurationThatTiesThemTheEmbeddingIsTheOutputMatrix) {
  const TemporaryFolder folder;
  auto config = nlohmann::json::parse(bytes_of(golden("gqa1-default/config.json")));
  const auto planned_with = [&](bool tied) {
    config["tie_word_embeddings"] = tied;
    return plan_of(folder.write("config.json", config.dump()), planned("full", 64, 1));
  };
  const EnginePlan two = planned_with(false);
  const EnginePlan one = planned_with(true);
  EXPECT_TRUE(one.warnings.empty()) << one.warnings[0];
  EXPECT_EQ(one.weights_read_bytes, two.weights_read_bytes);
}

TEST(Plan, TablesAreBesideThePool) {
  EngineOptions options = planned("full", 64, 1);
  options.kv.budget_bytes = 1 << 20;
  const EnginePlan small = plan_of(golden("gqa1-Q8_0.gguf"), options);
  options.kv.budget_bytes = 1 << 24;
  const EnginePlan large = plan_of(golden("gqa1-Q8_0.gguf"), options);
  ASSERT_GT(large.pool_bytes, 15 * small.pool_bytes);
  EXPECT_LT(large.table_bytes - small.table_bytes, (large.pool_bytes - small.pool_bytes) / 10);
  EXPECT_LT(small.table_bytes, small.pool_bytes);
}

TEST(Plan, WhatAShareOfTheMemoryWouldBeIsNotAsked) {
  EngineOptions options = planned("full", 64, 2);
  options.kv.budget_bytes = 1 << 16;
  const uint64_t total = total_of_file(options);
  options.kv.budget_share = 0.5;
  EXPECT_EQ(total_of_file(options), total);
}

TEST(Plan, WhatCannotBeReadIsRefused) {
  const TemporaryFolder folder;
  const EngineOptions options = planned("full", 64, 1);
  EXPECT_THROW(plan_engine("/no/such/model", options), Error);
  EXPECT_THROW(plan_engine(folder.path(), options), Error);
  EXPECT_THROW(plan_engine(folder.write("config.json", "{}"), options), Error);
  EXPECT_THROW(plan_engine(folder.write("config.json", "{"), options), Error);
  EXPECT_THROW(plan_engine(folder.write("model.gguf", "GGUF"), options), Error);
  EXPECT_THROW(plan_engine(golden("gqa1-Q8_0.gguf"), planned("fill", 64, 1)), Error);
  EXPECT_THROW(plan_engine(golden("gqa1-Q8_0.gguf"), planned("full", -1, 1)), Error);
  EXPECT_THROW(plan_engine(golden("gqa1-Q8_0.gguf"), planned("full", 0, 0)), Error);
  EXPECT_THROW(plan_engine(golden("gqa1-Q8_0.gguf"), planned("full", INT32_MAX, 4096)), Error);
}

// ---- what fits

PlanFit fit_of(const EngineOptions& options, uint64_t memory) {
  return plan_engine(golden("gqa1-Q8_0.gguf"), options, std::vector<uint64_t>{memory}).fits.at(0);
}

uint64_t total_of(const EngineOptions& options) {
  return plan_engine(golden("gqa1-Q8_0.gguf"), options).total_bytes;
}

TEST(Plan, FitsToTheByte) {
  for (const char* policy : {"full", "window:20", "h2o:32@every:8"}) {
    const EngineOptions options = planned(policy, 96, 3);
    const uint64_t total = total_of(options);
    EXPECT_TRUE(fit_of(options, total).fits) << policy;
    EXPECT_FALSE(fit_of(options, total - 1).fits) << policy;
    EXPECT_GE(fit_of(options, total).max_users, 3);
    EXPECT_LT(fit_of(options, total - 1).max_users, 3);
  }
}

TEST(Plan, TheLongestContextFitsAndNoLongerOne) {
  EngineOptions options = planned("full", 0, 2);
  for (const uint64_t memory : {2'000'000U, 3'000'000U, 50'000'000U}) {
    const PlanFit fit = fit_of(options, memory);
    if (fit.memory_context == 0) continue;
    options.context = fit.memory_context;
    EXPECT_LE(total_of(options), memory);
    options.context = fit.memory_context + 1;
    EXPECT_GT(total_of(options), memory);
    EXPECT_EQ(fit.max_context, std::min<int64_t>(fit.memory_context, 128));  // as it was trained
    options.context = 0;
  }
  EXPECT_EQ(fit_of(planned("window:20", 0, 1), 50'000'000).max_context, INT32_MAX);
  EXPECT_EQ(fit_of(options, 1000).max_context, 0);
  EXPECT_EQ(fit_of(options, 1000).max_users, 0);
}

TEST(Plan, TheMostUsersFitAndNoMore) {
  EngineOptions options = planned("full", 128, 1);
  const PlanFit fit = fit_of(options, 20'000'000);
  ASSERT_GT(fit.max_users, 1);
  ASSERT_LT(fit.max_users, 4096);
  options.max_sequences = fit.max_users;
  EXPECT_LE(total_of(options), 20'000'000U);
  ++options.max_sequences;
  EXPECT_GT(total_of(options), 20'000'000U);
}

TEST(Plan, WhatItProposesFits) {
  const EngineOptions options = planned("full", 4096, 4);
  const uint64_t without_pool =
      total_of(options) - plan_engine(golden("gqa1-Q8_0.gguf"), options).pool_bytes;
  bool has_rule = false, has_users = false, has_context = false;
  for (const uint64_t more : {100'000U, 400'000U, 3'000'000U}) {
    const PlanFit fit = fit_of(options, without_pool + more);
    ASSERT_FALSE(fit.fits);
    for (const Proposal& proposal : fit.proposals) {
      const EngineOptions with = with_proposal(options, proposal);
      EXPECT_LE(total_of(with), without_pool + more) << to_text({&proposal, 1});
      EXPECT_LE(Engine(tiny(), with).memory_bytes(), without_pool + more);
      has_rule |= proposal.policy.has_value();
      has_users |= proposal.max_sequences.has_value();
      has_context |= proposal.context.has_value();
    }
  }
  EXPECT_TRUE(has_rule && has_users && has_context);
  EXPECT_TRUE(fit_of(options, 1000).proposals.empty());
}

TEST(Plan, RulesThatItProposesFitWhateverWasAskedFor) {
  int rules = 0;
  for (const int32_t users : {1, 3, 16}) {
    for (const int64_t context : {200, 2000, 30'000}) {
      for (const int32_t batch : {16, 512}) {
        EngineOptions options = planned("full", context, users);
        options.batch_size = batch;
        const EnginePlan plan = plan_engine(golden("gqa1-Q8_0.gguf"), options);
        const uint64_t without_pool = plan.total_bytes - plan.pool_bytes;
        for (uint64_t part = 2; part <= 4096; part *= 2) {
          const uint64_t memory = without_pool + plan.pool_bytes / part;
          for (const Proposal& proposal : fit_of(options, memory).proposals) {
            rules += proposal.policy ? 1 : 0;
            EXPECT_LE(total_of(with_proposal(options, proposal)), memory)
                << to_text({&proposal, 1}) << ", " << users << " users, " << context << ", "
                << batch;
          }
        }
      }
    }
  }
  EXPECT_GT(rules, 20);
}

TEST(Plan, NoMemoryMeansWhatIsFreeHere) {
  const PlanFit fit = fit_of(planned("full", 64, 1), 0);
  EXPECT_GT(fit.memory_bytes, 0U);
  EXPECT_TRUE(fit.fits);
}

TEST(ModelInfo, CountsWhatTheFileHolds) {
  struct Row {
    const char* file;
    uint64_t n_parameters, weight_bytes;
    const char* weight_types;
  };
  // Of two layers 7 matrices and 2 norms each, a norm, the embedding and, where it is not that, the
  // output matrix.
  const Row rows[] = {
      {"gqa1-default", 37024, 4 * 37024, "F32 x21"},
      {"wide-head", 64160, 2 * 64160, "BF16 x20"},
      {"gqa1-Q8_0.gguf", 37024, (37024 - 160) / 32 * 34 + 4 * 160, "Q8_0 x16, F32 x5"}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.file);
    const ModelInfo info = Model::load(golden(row.file))->info();
    EXPECT_EQ(info.n_parameters, row.n_parameters);
    EXPECT_EQ(info.weight_bytes, row.weight_bytes);
    EXPECT_EQ(info.weight_types, row.weight_types);
  }
}

TEST(Plan, CountsWhatAStepReads) {
  EngineOptions options = planned("full", 100, 1);
  options.precision = Precision::kReference;  // weights are read where they lie
  const EnginePlan plan = plan_engine(golden("gqa1-Q8_0.gguf"), options);
  const ModelInfo info = Model::load(golden("gqa1-Q8_0.gguf"))->info();
  // Everything but the embedding's rows, whatever the output matrix is.
  const auto hidden = static_cast<uint64_t>(info.hidden_size);
  const auto rows = static_cast<uint64_t>(info.vocab_size);
  const uint64_t embedding = info.tied_embeddings ? 0 : rows * hidden * 34 / 32;
  EXPECT_EQ(plan.weights_read_bytes, info.weight_bytes - embedding);
  EXPECT_EQ(plan.kv_read_bytes, 100 * plan.kv_bytes_per_token);
  options.kv.policy = "window:20";
  EXPECT_EQ(plan_engine(golden("gqa1-Q8_0.gguf"), options).kv_read_bytes,
            20 * plan.kv_bytes_per_token);
}

}  // namespace
}  // namespace paddock::test
