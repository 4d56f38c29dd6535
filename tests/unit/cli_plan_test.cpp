// What `paddock plan` prints, and what it refuses.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "support/cli.h"
#include "support/golden.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

std::string plan_of_tiny(const std::string& options) {
  return "plan " + golden("gqa1-Q8_0.gguf") + " -t 2 " + options;
}

TEST(CliPlan, JsonHasWhatTheContractSays) {
  const Outcome o = paddock(plan_of_tiny("--json -c 100 --users 3 --memory 16MiB --kv-type f32"));
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = Json::parse(o.out);
  EngineOptions options;
  options.threads = 2;
  options.context = 100;
  options.max_sequences = 3;
  options.kv.type = KvType::kF32;
  const Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), options);
  EXPECT_EQ(json["total_bytes"], engine.memory_bytes());
  EXPECT_EQ(json["pool_bytes"], engine.kv_stats().pool_bytes);
  EXPECT_EQ(json["weights_bytes"].get<uint64_t>() + json["activation_bytes"].get<uint64_t>() +
                json["table_bytes"].get<uint64_t>() + json["pool_bytes"].get<uint64_t>(),
            engine.memory_bytes());
  ASSERT_EQ(json["kv_bytes_per_token_layer"].size(), 2U);
  EXPECT_EQ(json["kv_bytes_per_token"], 2 * json["kv_bytes_per_token_layer"][1].get<uint64_t>());
  EXPECT_EQ(json["fits"], engine.memory_bytes() <= 16U << 20);
  EXPECT_EQ(json["max_context"], 128);
  EXPECT_GE(json["max_users"].get<int>(), 3);
  EXPECT_EQ(json["memory_bytes"], 16 << 20);
  EXPECT_FALSE(json.contains("estimated"));
  EXPECT_GT(json["devices"].size(), 15U);
  for (const Json& device : json["devices"]) {
    EXPECT_TRUE(device["fits"].get<bool>() || device["name"] == "--memory");
    if (device["name"] == "--memory") continue;
    EXPECT_FALSE(device["source"].get<std::string>().empty());
    EXPECT_EQ(device["estimated"], true);
    const double read =
        json["weights_read_bytes"].get<double>() + 3 * json["kv_read_bytes"].get<double>();
    EXPECT_DOUBLE_EQ(device["tokens_per_second_ceiling"].get<double>(),
                     3 * device["bytes_per_second"].get<double>() / read);
  }
}

TEST(CliPlan, SaysWhatWouldFit) {
  const Outcome o = paddock(plan_of_tiny("-c 4096 --users 4 --memory 8MiB"));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("4 sequences of 4096 positions under full, f16"), std::string::npos)
      << o.out;
  EXPECT_NE(o.out.find("| --memory | 8 | with lower --context to "), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("lower --users to "), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("--policy h2o:"), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("ceiling, computed"), std::string::npos);
  const Outcome one = paddock(plan_of_tiny("--device h200"));
  EXPECT_NE(one.out.find("| NVIDIA H200 |"), std::string::npos) << one.out;
  EXPECT_EQ(one.out.find("A100"), std::string::npos);
  EXPECT_NE(one.out.find("for other machines, estimates"), std::string::npos);
  EXPECT_TRUE(Json::parse(paddock(plan_of_tiny("--json --device h200")).out).contains("estimated"));
}

TEST(CliPlan, ReadsAConfigurationAlone) {
  const TemporaryFolder folder;
  std::ifstream config(golden("gqa1-default/config.json"));
  const std::string text{std::istreambuf_iterator<char>(config), {}};
  const std::string path = folder.write("config.json", text);
  const Outcome o = paddock("plan " + path);
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.out.find("estimates: there is no header of weights"), std::string::npos) << o.out;
  EXPECT_TRUE(Json::parse(paddock("plan --json " + path).out).contains("estimated"));
}

TEST(CliPlan, TakesMachinesOfTheUsersOwn) {
  const TemporaryFolder folder;
  const std::string mine = folder.write(
      "mine.json",
      R"([{"name": "My box", "memory": "4GB", "bytes_per_second": 5e10, "source": "measured"}])");
  const Outcome o = paddock(plan_of_tiny("--json --device 'my box' --devices " + mine));
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = Json::parse(o.out);
  ASSERT_EQ(json["devices"].size(), 1U);
  EXPECT_EQ(json["devices"][0]["name"], "My box");
  EXPECT_EQ(json["devices"][0]["memory_bytes"], 4'000'000'000);
  EXPECT_EQ(json["devices"][0]["source"], "measured");
  const auto refused = [&](const std::string& text, const std::string& words) {
    expect_refusal(plan_of_tiny("--devices " + folder.write("bad.json", text)), 2, words);
  };
  refused("{", "it is no JSON array");
  refused("[1]", "device 0 has no \"name\"");
  refused(R"([{"name": "a", "memory": "4GB", "source": "b"}])",
          "device 0 has no \"bytes_per_second\" above 0");
  refused(R"([{"name": "a", "memory": "lots", "source": "b", "bytes_per_second": 1}])",
          "--devices lots: must be a size");
}

TEST(CliPlan, RefusesWhatIsWrong) {
  expect_refusal(plan_of_tiny("--device nowhere"), 2, "--device nowhere: none is called so");
  expect_refusal(plan_of_tiny("--device a100"), 2,
                 "that may be 'NVIDIA A100 80GB SXM', 'NVIDIA A100 80GB PCIe'");
  expect_refusal(plan_of_tiny("--device h200 --memory 1GiB"), 2, "give one of the two");
  expect_refusal(plan_of_tiny("--memory much"), 2, "--memory much: must be a size");
  expect_refusal(plan_of_tiny("--users 0"), 2, "--users 0: must be 1 or more");
  expect_refusal(plan_of_tiny("--policy fill"), 1, "fill");
  expect_refusal("plan /no/such/model", 1, "/no/such/model");
}

}  // namespace
}  // namespace paddock::test
