// Printers of the cache's statistics: names, values, and what the tools that read them say.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kv/cache_manager.h"
#include "support/golden.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

/// An engine that has trimmed, windowed and truncated.
KvStats busy_stats() {
  EngineOptions options;
  options.threads = 1;
  options.kv.policy = "0=h2o:32@every:16,1=sink:2+6";
  options.kv.block_size = 4;
  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), options);
  const SessionId session = engine.open_session();
  engine.feed(session, golden_tokens());
  return engine.kv_stats();
}

TEST(Prometheus, HoldsEveryLayerAndReason) {
  const KvStats stats = busy_stats();
  const std::string text = to_prometheus(stats);
  for (const KvLayerStats& layer : stats.layers) {
    for (int32_t r = 0; r < kRemovalReasons; ++r) {
      const std::string line = "paddock_kv_pages_removed_total{layer=\"" +
                               std::to_string(layer.layer) + "\",reason=\"" +
                               removal_reason_name(static_cast<RemovalReason>(r)) + "\"} " +
                               std::to_string(layer.pages_removed[r]) + "\n";
      EXPECT_NE(text.find(line), std::string::npos) << line;
    }
  }
  EXPECT_GT(stats.layers[0].pages_removed[static_cast<size_t>(RemovalReason::kPolicyTrim)], 0);
  EXPECT_GT(stats.layers[1].pages_removed[static_cast<size_t>(RemovalReason::kWindow)], 0);
}

TEST(Prometheus, PromtoolAcceptsIt) {
  PADDOCK_REAL_FILE(promtool, "PADDOCK_PROMTOOL")
  KvStats stats = busy_stats();
  stats.layers[0].policy = "of\\my \"own\"\nmaking";  // labels are escaped
  stats.layers[1].policy = "no UTF-8: \xff\x01 \xe2\x82";
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/metrics.txt";
  std::ofstream(path) << to_prometheus(stats);
  const std::string command = std::string(promtool) + " check metrics < " + path + " > " +
                              folder.path() + "/out.txt" + " 2>&1";
  const int status = std::system(command.c_str());
  std::ifstream out(folder.path() + "/out.txt");
  EXPECT_EQ(status, 0) << std::string{std::istreambuf_iterator<char>(out), {}};
  // And it is not asleep: a metric without its type line is refused.
  std::ofstream(path) << "paddock_kv_x{layer=0} 1\n";
  EXPECT_NE(std::system(command.c_str()), 0);
}

TEST(Prometheus, ReplacesWhatIsNoUtf8) {
  KvStats stats;
  stats.layers.resize(1);
  stats.layers[0].policy = "a\xff\xe2\x82\xac\xe2\x82";
  EXPECT_NE(to_prometheus(stats).find("policy=\"a\xef\xbf\xbd\xe2\x82\xac\xef\xbf\xbd\""),
            std::string::npos)
      << to_prometheus(stats);
}

TEST(Table, HasOneLinePerLayerWhateverANameHolds) {
  KvStats stats;
  stats.layers.resize(3);
  stats.last_violation = "of one line";
  const std::string plain = to_table(stats);
  stats.layers[1].policy = "odd\nname\x1b[2J";
  stats.last_violation = "of\ntwo";
  const std::string table = to_table(stats);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'),
            std::count(plain.begin(), plain.end(), '\n'));
  EXPECT_NE(table.find("odd?name?[2J"), std::string::npos) << table;
  EXPECT_TRUE(table.ends_with("\nof?two\n")) << table;
}

TEST(Json, SnapshotAndEventsParse) {
  const KvStats stats = busy_stats();
  const auto json = nlohmann::json::parse(to_json(stats));
  EXPECT_EQ(json["layers"].size(), stats.layers.size());
  EXPECT_EQ(json["layers"][0]["policy"], "h2o:32@every:16");
  EXPECT_EQ(json["layers"][0]["pages_removed"].size(), static_cast<size_t>(kRemovalReasons));
  EXPECT_EQ(json["events"], stats.events);
  EXPECT_GT(json["process_resident_bytes"].get<int64_t>(), 1 << 20);
}

TEST(Events, AreNumberedBoundedAndTellLoss) {
  EngineOptions options;
  options.threads = 1;
  options.kv.policy = "window:4";
  options.kv.block_size = 1;
  options.kv.event_capacity = 10;
  std::vector<KvEvent> all;
  options.kv.on_event = [&](const KvEvent& event) { all.push_back(event); };
  Engine engine(Model::load(golden("gqa1-Q8_0.gguf")), options);
  const SessionId session = engine.open_session();
  engine.feed(session, golden_tokens());
  const KvStats stats = engine.kv_stats();
  ASSERT_EQ(stats.events, all.size());
  EXPECT_EQ(stats.events_lost, all.size() - 10);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].number, i);
  const std::vector<KvEvent> kept = engine.kv_events();
  ASSERT_EQ(kept.size(), 10U);
  EXPECT_EQ(kept.front().number, all.size() - 10);
  EXPECT_EQ(to_json(kept.back()), to_json(all.back()));
  EXPECT_EQ(engine.kv_events(all.size() - 3).size(), 3U);
  EXPECT_EQ(all[0].reason, RemovalReason::kWindow);
  EXPECT_EQ(all[0].policy, "window:4");
}

TEST(Events, ATrimSaysWhyAndWhoWasNext) {
  EngineOptions options = reference_options();
  options.kv.policy = "h2o:32@every:16";
  options.kv.block_size = 4;
  Engine engine(Model::load(golden("gqa1-default")), options);
  engine.feed(engine.open_session(), golden_tokens());
  const std::vector<KvEvent> events = engine.kv_events();
  ASSERT_FALSE(events.empty());
  for (const KvEvent& event : events) {
    EXPECT_EQ(event.reason, RemovalReason::kPolicyTrim);
    EXPECT_EQ(event.length % 16, 0);
    EXPECT_LE(event.first_position + event.n_tokens, event.length - 16);  // the newer half stays
    EXPECT_GE(event.runner_up_position, 0);
    EXPECT_GE(event.runner_up_score, event.score);
    EXPECT_GE(event.idle_steps, 0);
    EXPECT_GE(event.age_steps, event.idle_steps);
  }
}

}  // namespace
}  // namespace paddock::test
