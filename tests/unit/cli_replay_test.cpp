// What `paddock replay` prints, and what it refuses.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/cli.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

using Json = nlohmann::json;

/// Three texts of two blocks, the first one again at the end: 8 blocks asked for, 6 different.
constexpr const char* kTrace =
    "{\"timestamp\":0,\"input_length\":1000,\"output_length\":9,\"hash_ids\":[1,2]}\n"
    "{\"timestamp\":1000,\"input_length\":1000,\"output_length\":9,\"hash_ids\":[3,4]}\n"
    "{\"timestamp\":2000,\"input_length\":1000,\"output_length\":9,\"hash_ids\":[5,6]}\n"
    "{\"timestamp\":4000,\"input_length\":1000,\"output_length\":9,\"hash_ids\":[1,2]}\n";

class CliReplay : public testing::Test {
 protected:
  Outcome replay(const std::string& options, const std::string& trace = kTrace) {
    return paddock("replay " + folder_.write("trace.jsonl", trace) + " " + options);
  }
  TemporaryFolder folder_;
};

TEST_F(CliReplay, JsonHasWhatTheContractSays) {
  const Outcome o = replay("--json --reclaim lru,depth --capacity 4,5,6 --block-bytes 2KiB");
  ASSERT_EQ(o.code, 0) << o.err;
  const Json json = Json::parse(o.out);
  EXPECT_EQ(json["requests"], 4);
  EXPECT_EQ(json["references"], 8);
  EXPECT_EQ(json["distinct"], 6);
  EXPECT_DOUBLE_EQ(json["infinite_hit_rate"].get<double>(), 0.25);
  EXPECT_FALSE(json.contains("curve"));
  ASSERT_EQ(json["results"].size(), 6U);
  const Json& five = json["results"][1];
  EXPECT_EQ(five["policy"], "lru");
  EXPECT_EQ(five["capacity"], 5);
  EXPECT_DOUBLE_EQ(five["hit_rate"].get<double>(), 0.125);  // block 1 is still there
  EXPECT_DOUBLE_EQ(five["belady_hit_rate"].get<double>(), 0.25);
  EXPECT_DOUBLE_EQ(five["of_belady"].get<double>(), 0.5);
  EXPECT_EQ(five["found"], 1);
  EXPECT_EQ(five["regret"], 1);
  EXPECT_EQ(five["reclaimed"], 2);
  EXPECT_EQ(five["too_large"], 0);
  EXPECT_EQ(five["capacity_bytes"], 10240);
  EXPECT_EQ(five["found_bytes"], 2048);
  EXPECT_EQ(json["results"][3]["policy"], "depth");
}

TEST_F(CliReplay, TablesHaveTheSame) {
  const Outcome o = replay("--reclaim lru --capacity 1,5 --block-bytes 1MiB --curve");
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_NE(
      o.out.find("4 requests in 4 s, 4000 tokens of prompts; 8 blocks asked for, 6 different"),
      std::string::npos)
      << o.out;
  EXPECT_NE(o.out.find("room for all of them finds 0.2500"), std::string::npos);
  EXPECT_NE(o.out.find("| lru | 5 | 5.0 | 1.0 | 0.1250 | 50.0 % | 0.2500 | 1 |\n"),
            std::string::npos)
      << o.out;
  EXPECT_NE(o.out.find("4 requests have more than 1 blocks: an engine of that size refuses them\n"),
            std::string::npos);
  EXPECT_NE(o.out.find("| capacity | lru |\n|---|---|\n| 1 | 0.0000 |\n| 2 | 0.0000 |\n"
                       "| 5 | 0.1250 |\n| 6 | 0.2500 |\n"),
            std::string::npos)
      << o.out;
}

TEST_F(CliReplay, ChoosesSizesWhereNobodyDoes) {
  const Json json = Json::parse(replay("--json --curve --sample 1").out);
  std::vector<int> sizes;
  for (const Json& result : json["results"]) sizes.push_back(result["capacity"]);
  EXPECT_EQ(sizes, (std::vector<int>{1, 3, 6, 1, 3, 6, 1, 3, 6}));
  EXPECT_EQ(json["curve"].size(), 5U);  // 1, 2, 3, 5, 6
  EXPECT_DOUBLE_EQ(json["curve"][4]["hit_rate"].get<double>(), 0.25);
  const Outcome sampled = replay("--curve --sample 0.5");
  EXPECT_NE(sampled.out.find("| lru, estimated from 0.5 of the blocks |"), std::string::npos);
}

TEST_F(CliReplay, ReadsStdinAndNothing) {
  const Outcome o = paddock("replay - --json --capacity 5 --reclaim lru", kTrace);
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_EQ(Json::parse(o.out)["results"][0]["found"], 1);
  const Outcome none = replay("--json --curve", "");
  ASSERT_EQ(none.code, 0) << none.err;
  EXPECT_EQ(Json::parse(none.out)["references"], 0);
  EXPECT_EQ(replay("--curve", "\n").code, 0);
}

TEST_F(CliReplay, RefusesWhatIsWrong) {
  const std::string trace = "replay " + folder_.write("ok", kTrace) + " ";
  expect_refusal(trace + "--reclaim fifo", 1, "kv.reclaim is 'fifo'");
  expect_refusal(trace + "--capacity 3,-1", 2, "--capacity -1: must be 0 or more");
  expect_refusal(trace + "--capacity many", 2, "--capacity many");
  expect_refusal(trace + "--sample 0.1", 2, "--sample goes with --curve");
  expect_refusal(trace + "--curve --sample 0", 2, "--sample 0: must be above 0 and at most 1");
  expect_refusal(trace + "--curve --sample 1.5", 2, "--sample 1.5");
  expect_refusal(trace + "--block-bytes 0", 2,
                 "--block-bytes 0: must be a size such as 256MiB, 1.5GiB or 4096");
  expect_refusal("replay /no/such/trace", 1, "/no/such/trace");
  expect_refusal("replay", 2, "path");
  const std::string bad = folder_.write("bad", std::string(kTrace) + "{\"hash_ids\": 5}\n");
  expect_refusal("replay " + bad, 1, bad + ", line 5: \"hash_ids\" is no list; mend the line");
}

TEST_F(CliReplay, ShadowsAreInTheStatisticsWhereTheyAreAskedFor) {
  write_small_model(folder_);
  const std::string generate =
      "generate -m " + folder_.path() + " -p hello -n 2 --temp 0 --kv-stats ";
  EXPECT_NE(paddock(generate + "--kv-shadow").err.find("0 with 4 times the pool\n"),
            std::string::npos);
  EXPECT_EQ(paddock(generate).err.find("times the pool"), std::string::npos);
}

}  // namespace
}  // namespace paddock::test
