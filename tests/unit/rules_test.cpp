// The built-in rules by themselves: schedules written out, and every ranking against a formula
// written anew.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <map>
#include <random>

#include "kv/policy_map.h"
#include "kv/reclaim_policy.h"
#include "paddock/error.h"
#include "paddock/eviction.h"
#include "support/device_rules.h"

namespace paddock {
namespace {

struct Row {
  const char* rule;
  int32_t layer, n_layers;
  int32_t budget, every, observe, keep_first, keep_newest, newest_divisor;
};

TEST(Rules, SchedulesAreThoseOfThePapersAtEveryBudget) {
  constexpr int32_t kHuge = kUnlimited - 1;
  const Row rows[] = {
      {"lru:1", 0, 4, 1, 64, 0, 0, 0, 0},
      {"lru:64@every:7@sinks:3@recent:5", 2, 4, 64, 7, 0, 3, 5, 0},
      {"knorm:33@recent:32", 0, 1, 33, 64, 0, 0, 32, 0},
      {"random:5@sinks:4@seed:3", 0, 1, 5, 64, 0, 4, 0, 0},
      {"tova:9", 0, 1, 9, 64, 1, 0, 0, 0},
      {"tova:9@every:1@recent:2", 0, 1, 9, 1, 1, 0, 2, 0},
      // Half of the budget, rounded down, is recent.
      {"h2o:1", 0, 2, 1, 64, 0, 0, 0, 2},
      {"h2o:2", 0, 2, 2, 64, 0, 0, 1, 2},
      {"h2o:7", 0, 2, 7, 64, 0, 0, 3, 2},
      {"h2o:64", 1, 2, 64, 64, 0, 0, 32, 2},
      {"h2o:101@every:9@sinks:3", 0, 2, 101, 9, 0, 3, 50, 2},
      {"h2o:64@recent:10", 0, 2, 64, 64, 0, 0, 10, 0},
      {"h2o:2147483646", 0, 2, kHuge, 64, 0, 0, kHuge / 2, 2},
      // The 32 newest, or half of a small budget.
      {"snapkv:1", 0, 2, 1, 0, 0, 0, 0, 0},
      {"snapkv:7", 0, 2, 7, 0, 3, 0, 3, 0},
      {"snapkv:63", 0, 2, 63, 0, 31, 0, 31, 0},
      {"snapkv:64", 0, 2, 64, 0, 32, 0, 32, 0},
      {"snapkv:65", 0, 2, 65, 0, 32, 0, 32, 0},
      {"snapkv:4096", 0, 2, 4096, 0, 32, 0, 32, 0},
      {"snapkv:4096@recent:100@sinks:4", 0, 2, 4096, 0, 100, 4, 100, 0},
      // W = min(32, B/2) and an arithmetic sequence from 2 (B - W) - last down to (B - W) / 20.
      {"pyramid:lru:40", 0, 1, 40, 64, 0, 0, 0, 0},
      {"pyramid:lru:40", 0, 2, 59, 64, 0, 0, 0, 0},
      {"pyramid:lru:40", 1, 2, 21, 64, 0, 0, 0, 0},
      {"pyramid:lru:63", 0, 4, 94, 64, 0, 0, 0, 0},
      {"pyramid:lru:63", 1, 4, 74, 64, 0, 0, 0, 0},
      {"pyramid:lru:63", 2, 4, 53, 64, 0, 0, 0, 0},
      {"pyramid:lru:63", 3, 4, 32, 64, 0, 0, 0, 0},
      {"pyramid:lru:65", 0, 4, 97, 64, 0, 0, 0, 0},
      {"pyramid:lru:65", 3, 4, 33, 64, 0, 0, 0, 0},
      {"pyramid:lru:1000", 0, 5, 1920, 64, 0, 0, 0, 0},
      {"pyramid:lru:1000", 1, 5, 1460, 64, 0, 0, 0, 0},
      {"pyramid:lru:1000", 2, 5, 1000, 64, 0, 0, 0, 0},
      {"pyramid:lru:1000", 3, 5, 540, 64, 0, 0, 0, 0},
      {"pyramid:lru:1000", 4, 5, 80, 64, 0, 0, 0, 0},
      {"pyramid:lru:2147483646", 0, 2, kHuge, 64, 0, 0, 0, 0},
      {"pyramid:lru:2147483646", 1, 2, 107374212, 64, 0, 0, 0, 0},
      // All else follows the layer's own budget.
      {"pyramid:h2o:41@every:8@sinks:2", 0, 2, 61, 8, 0, 2, 30, 2},
      {"pyramid:h2o:41@every:8@sinks:2", 1, 2, 21, 8, 0, 2, 10, 2},
      {"pyramid:snapkv:41", 1, 2, 21, 0, 10, 0, 10, 0},
      {"pyramid:snapkv:41", 0, 2, 61, 0, 30, 0, 30, 0},
      // In place of a budget of its own a layer gets a share: see cake_test.
      {"cake:lru:40", 1, 4, 40, 64, 32, 0, 0, 0},
      {"cake:h2o:41@every:8@sinks:2", 0, 2, 41, 8, 8, 2, 20, 2},
      {"cake:tova:40", 0, 2, 40, 64, 1, 0, 0, 0},
      {"cake:snapkv:41", 1, 2, 41, 0, 20, 0, 20, 0}};
  for (const Row& row : rows) {
    SCOPED_TRACE(fmt::format("{} in layer {} of {}", row.rule, row.layer, row.n_layers));
    const TrimSchedule s = make_policy(row.rule)->schedule(row.layer, row.n_layers);
    EXPECT_EQ(s.budget, row.budget);
    EXPECT_EQ(s.every, row.every);
    EXPECT_EQ(s.observe, row.observe);
    EXPECT_EQ(s.keep_first, row.keep_first);
    EXPECT_EQ(s.keep_newest, row.keep_newest);
    EXPECT_EQ(s.newest_divisor, row.newest_divisor);
  }
  for (const char* rule : {"full", "window:9", "sink:3+9"}) {
    EXPECT_EQ(make_policy(rule)->schedule(0, 2).budget, kUnlimited) << rule;
  }
}

TEST(Rules, SayWhatTheySeeAndWhatTheyHaveMeasured) {
  struct Said {
    const char* rule;
    int32_t sinks, window;
    Positions positions;
    bool attention, key_norms;
  };
  constexpr Positions kOwn = Positions::kOriginal;
  constexpr Positions kTurned = Positions::kCompact;
  for (const Said& said : {Said{"full", 0, kUnlimited, kOwn, false, false},
                           {"window:9", 0, 9, kOwn, false, false},
                           {"window:9@compact", 0, 9, kTurned, false, false},
                           {"sink:4+12", 4, 12, kTurned, false, false},
                           {"sink:4+12@original", 4, 12, kOwn, false, false},
                           {"lru:9", 0, kUnlimited, kOwn, true, false},
                           {"h2o:9@compact", 0, kUnlimited, kTurned, true, false},
                           {"tova:9@original", 0, kUnlimited, kOwn, true, false},
                           {"snapkv:9", 0, kUnlimited, kOwn, true, false},
                           {"knorm:9", 0, kUnlimited, kOwn, false, true},
                           {"random:9", 0, kUnlimited, kOwn, false, false},
                           {"pyramid:knorm:9@compact", 0, kUnlimited, kTurned, false, true},
                           {"pyramid:h2o:9", 0, kUnlimited, kOwn, true, false},
                           {"cake:knorm:9@compact", 0, kUnlimited, kTurned, true, true},
                           {"cake:random:9", 0, kUnlimited, kOwn, true, false}}) {
    const auto policy = make_policy(said.rule);
    EXPECT_EQ(policy->visibility(0).sinks, said.sinks) << said.rule;
    EXPECT_EQ(policy->visibility(0).window, said.window) << said.rule;
    EXPECT_EQ(policy->positions(), said.positions) << said.rule;
    EXPECT_EQ(policy->needs().attention, said.attention) << said.rule;
    EXPECT_EQ(policy->needs().key_norms, said.key_norms) << said.rule;
  }
}

TEST(Rules, AnswersAreEqualWhereAllOfThemIs) {
  const TrimSchedule s{.budget = 64, .every = 8, .observe = 4, .keep_first = 2, .keep_newest = 16};
  EXPECT_EQ(s, s);
  for (int32_t TrimSchedule::*field :
       {&TrimSchedule::budget, &TrimSchedule::every, &TrimSchedule::observe,
        &TrimSchedule::keep_first, &TrimSchedule::keep_newest, &TrimSchedule::newest_divisor}) {
    TrimSchedule other = s;
    ++(other.*field);
    EXPECT_NE(s, other);
  }
  EXPECT_EQ((TokenVisibility{4, 60}), (TokenVisibility{4, 60}));
  EXPECT_NE((TokenVisibility{4, 60}), (TokenVisibility{4, 61}));
  EXPECT_NE((TokenVisibility{4, 60}), (TokenVisibility{5, 60}));
  EXPECT_NE((PolicyNeeds{true, false}), (PolicyNeeds{true, true}));
  EXPECT_NE((PolicyNeeds{true, false}), (PolicyNeeds{false, false}));
}

TEST(Rules, AreNamedAsTheyAreWritten) {
  for (const char* rule :
       {"full", "window:9", "window:9@compact", "sink:4+12", "sink:4+12@original", "lru:9",
        "lru:40@every:9@sinks:3@recent:5@compact", "random:26@every:7@seed:9@compact",
        "random:26@sinks:1@recent:2@seed:0", "snapkv:64@recent:8", "tova:64@every:1",
        "knorm:64@sinks:4", "h2o:64@recent:16", "pyramid:h2o:64@every:8@sinks:2@compact",
        "cake:h2o:64@every:8@sinks:2@compact"}) {
    EXPECT_EQ(make_policy(rule)->name(), rule);
  }
  EXPECT_EQ(make_policy("window:9@original")->name(), "window:9");
  EXPECT_EQ(make_policy("sink:4+12@compact")->name(), "sink:4+12");
  EXPECT_EQ(make_policy("lru:9@original@recent:2@every:3")->name(), "lru:9@every:3@recent:2");
}

TEST(Rules, AreAllComparedOnADevice) {
  const std::vector<std::string> rules = test::device_rules(160);
  EXPECT_EQ(test::forms_without_rule(rules), std::vector<std::string>());
  EXPECT_EQ(test::forms_without_rule({"full", "lru:8"}).size(), policy_forms().size() - 3)
      << "full, lru:B and lru are there";
  for (const std::string& rule : rules) {
    EXPECT_NO_THROW(PolicyMap::parse(rule, 4).check_block_size(16)) << rule;
  }
}

TEST(Rules, LeaveSomethingToChooseFrom) {
  for (const char* rule :
       {"lru:4@recent:4", "lru:4@sinks:2@recent:2", "knorm:8@sinks:8", "h2o:8@sinks:4",
        "snapkv:8@sinks:4", "pyramid:lru:4@recent:4", "cake:lru:4@recent:4"}) {
    EXPECT_THROW(make_policy(rule), Error) << rule;
  }
  for (const char* rule :
       {"lru:4@recent:3", "lru:4@sinks:2@recent:1", "knorm:8@sinks:7", "h2o:8@sinks:3",
        "snapkv:8@sinks:3", "pyramid:lru:4@recent:3", "cake:lru:4@recent:3"}) {
    EXPECT_NO_THROW(make_policy(rule)) << rule;
  }
}

TEST(Rules, TakeNumbersUpToTheirLimits) {
  for (const char* rule :
       {"window:1", "window:2147483647", "sink:1+1", "sink:1+2147483645", "lru:2147483646",
        "random:9@seed:0", "lru:9@every:2147483647", "random:9@seed:9223372036854775807"}) {
    EXPECT_NO_THROW(make_policy(rule)) << rule;
  }
  for (const char* rule :
       {"window:0", "window:2147483648", "sink:1+2147483646", "sink:0+1", "lru:2147483647",
        "random:9@seed:-1", "random:9@seed:9223372036854775808", "lru:9@sinks:0", "lru:9@recent:0",
        "snapkv:9@every:2", "knorm:9@seed:1", "window:9@sinks:1", "sink:1+9@every:4",
        "window:9@recent:1", "full@seed:1", "window:9@seed:1"}) {
    EXPECT_THROW(make_policy(rule), Error) << rule;
  }
}

/// A layer as a decision might find it.
struct Scene {
  std::vector<BlockInfo> blocks;
  LayerView view;
};

Scene random_scene(std::mt19937& random, int32_t block_size) {
  Scene scene;
  const auto n = 1 + random() % 14;
  int64_t position = 0;
  for (size_t i = 0; i < n; ++i) {
    position += block_size * static_cast<int64_t>(random() % 3);
    BlockInfo block;
    block.first_position = position;
    block.n_tokens = i + 1 < n ? block_size : 1 + static_cast<int32_t>(random() % block_size);
    block.is_protected = random() % 4 == 0;
    // Few values, so that there are ties.
    block.mass = static_cast<double>(random() % 5) / 4;
    block.recent_mass = static_cast<double>(random() % 5) / 8;
    block.last_used = static_cast<int64_t>(random() % 4);
    block.key_norm = static_cast<double>(random() % 5) / 2;
    scene.blocks.push_back(block);
    position += block_size;
  }
  scene.view = {static_cast<int32_t>(random() % 3), 3, 4, block_size, position + 5, 0, {}};
  for (const BlockInfo& block : scene.blocks) scene.view.tokens += block.n_tokens;
  return scene;
}

uint64_t splitmix(uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

/// What docs/policies.md says that a block is worth.
double worth(const std::string& rule, const Scene& scene, int32_t at) {
  const BlockInfo& block = scene.blocks[at];
  const std::string name = rule.substr(0, rule.find(':'));
  if (name == "lru") return static_cast<double>(block.last_used);
  if (name == "h2o") return block.mass / block.n_tokens;
  if (name == "tova") return block.recent_mass / block.n_tokens;
  if (name == "knorm") return -block.key_norm;
  if (name == "snapkv") {
    const int32_t size = scene.view.block_size;
    const int32_t reach = size == 1 ? 2 : size == 2 ? 1 : 0;
    double sum = 0;
    for (int32_t i = at - reach; i <= at + reach; ++i) {
      if (i < 0 || i >= static_cast<int32_t>(scene.blocks.size())) continue;
      if (!scene.blocks[i].is_protected)
        sum += scene.blocks[i].recent_mass / scene.blocks[i].n_tokens;
    }
    return sum / (2 * reach + 1);
  }
  const uint64_t seed = rule.find("@seed:7") == std::string::npos ? 0 : 7;
  uint64_t lot = splitmix(seed);
  for (const int64_t part : {int64_t{scene.view.layer}, block.first_position, scene.view.length}) {
    lot = splitmix(lot ^ static_cast<uint64_t>(part));
  }
  return static_cast<double>(lot >> 11);
}

TEST(Rules, RankAsTheirFormulasSay) {
  std::mt19937 random(77);
  for (const std::string rule : {"lru:9", "h2o:9", "tova:9", "knorm:9", "snapkv:9", "random:9",
                                 "random:9@seed:7", "pyramid:h2o:9", "cake:h2o:9"}) {
    const std::string inner = rule.ends_with(":h2o:9") ? "h2o:9" : rule;
    const auto policy = make_policy(rule);
    for (int i = 0; i < 400; ++i) {
      Scene scene = random_scene(random, 1 + static_cast<int32_t>(random() % 4));
      scene.view.blocks = scene.blocks;
      const auto n_tokens = static_cast<int64_t>(1 + random() % 12);
      std::vector<Victim> expected;
      for (size_t b = 0; b < scene.blocks.size(); ++b) {
        const auto block = static_cast<int32_t>(b);
        if (!scene.blocks[b].is_protected) expected.push_back({block, worth(inner, scene, block)});
      }
      std::stable_sort(expected.begin(), expected.end(), [&](const Victim& a, const Victim& b) {
        if (a.score != b.score) return a.score < b.score;
        const BlockInfo& x = scene.blocks[a.block];
        const BlockInfo& y = scene.blocks[b.block];
        if (x.last_used != y.last_used) return x.last_used < y.last_used;
        return x.first_position > y.first_position;
      });
      int64_t freed = 0;
      size_t named = 0;
      while (named < expected.size() && freed < n_tokens) {
        freed += scene.blocks[expected[named++].block].n_tokens;
      }
      if (named < expected.size()) ++named;  // the runner-up
      expected.resize(named);
      std::vector<Victim> victims = {{99, 1.0}};  // what stands there is no answer of this call
      policy->trim(scene.view, n_tokens, victims);
      ASSERT_EQ(victims.size(), expected.size()) << rule;
      for (size_t v = 0; v < victims.size(); ++v) {
        ASSERT_EQ(victims[v].block, expected[v].block) << rule << " " << v;
        ASSERT_EQ(victims[v].score, expected[v].score) << rule << " " << v;
      }
    }
  }
}

TEST(Rules, RankOnlyByNumbers) {
  std::vector<BlockInfo> blocks(3);
  for (BlockInfo& block : blocks) block.n_tokens = 1;
  blocks[0].is_protected = true;
  const LayerView view = {0, 1, 1, 1, 3, 3, blocks};
  std::vector<Victim> victims;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double odd : {kInfinity, -kInfinity, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(rank_blocks(view, 1, victims, [&](int32_t b) { return b == 2 ? odd : 0.0; }),
                 Error);
    rank_blocks(view, 1, victims, [&](int32_t b) { return b == 0 ? odd : 0.0; });
    EXPECT_EQ(victims.size(), 2U) << "nobody asks for the score of what is protected";
  }
  EXPECT_THROW(rank_blocks(view, 1, victims, nullptr), Error);
}

// ---- which kept block leaves first

CachedBlock leaf(int32_t block, int64_t prompts = 1, uint64_t text = 0, int64_t last_use = 0) {
  return {block, 0, prompts, last_use, text == 0 ? static_cast<uint64_t>(100 + block) : text};
}

/// All of them, the first to leave first.
std::vector<int32_t> all_of(ReclaimPolicy& policy) {
  std::vector<int32_t> out;
  for (int32_t block = policy.next(); block >= 0; block = policy.next()) {
    out.push_back(block);
    policy.on_removed(block);
  }
  return out;
}

using Blocks = std::vector<int32_t>;

TEST(Reclaim, ListsKeepTheirOrder) {
  BlockLists lists(2);
  lists.reserve(10);
  const auto all = [&](int32_t list) {
    BlockLists copy = lists;
    Blocks out;
    for (; copy.front(list) >= 0; copy.remove(out.back())) out.push_back(copy.front(list));
    return out;
  };
  lists.remove(5);  // of what it never heard
  for (const int32_t block : {4, 0, 9, 2}) lists.push_back(0, block);
  EXPECT_EQ(all(0), (Blocks{4, 0, 9, 2}));
  lists.remove(0);
  lists.remove(0);  // twice is once
  lists.push_back(0, 4);
  EXPECT_EQ(all(0), (Blocks{9, 2, 4}));
  lists.push_back(1, 2);  // a block is in one list
  EXPECT_EQ(all(0), (Blocks{9, 4}));
  EXPECT_EQ(all(1), Blocks{2});
  EXPECT_EQ(lists.size(0), 2);
  lists.remove(9);
  lists.remove(4);
  EXPECT_EQ(lists.front(0), -1);
  EXPECT_EQ(lists.size(1), 1);
}

TEST(Reclaim, ALeafIsTheLeastRecentlyUsedOfAll) {
  ReclaimOrder order(nullptr, 8);
  order.on_release(leaf(3), true);
  order.on_release(leaf(1), false);
  order.on_release(leaf(0), true);
  EXPECT_EQ(order.n_cached(), 3);
  EXPECT_EQ(order.next(), 3);
  order.on_removed(3);
  order.on_leaf(leaf(1));  // it keeps the place that it had
  EXPECT_EQ(order.next(), 1);
  order.on_use(1);
  EXPECT_FALSE(order.is_leaf(1));
  EXPECT_EQ(order.next(), 0);
  order.on_release(leaf(1), true);
  EXPECT_EQ(order.next(), 0);
  EXPECT_EQ(order.violations(), 0);
}

/// Has room for as many blocks as it was first asked for.
class Cramped final : public ReclaimPolicy {
 public:
  std::string name() const override { return "cramped"; }
  void reserve(int32_t n_blocks) override {
    if (room_ > 0) throw std::bad_alloc();
    room_ = n_blocks;
  }
  void on_leaf(const CachedBlock& block) override { EXPECT_LT(block.block, room_); }
  void on_use(int32_t block) override { EXPECT_LT(block, room_); }
  void on_removed(int32_t block) override { EXPECT_LT(block, room_); }
  int32_t next() override { return -1; }

 private:
  int32_t room_ = 0;
};

TEST(Reclaim, AnOrderThatHasNoRoomForMoreBlocksHearsOfNone) {
  ReclaimOrder order(std::make_unique<Cramped>(), 4);
  order.move_into(ReclaimOrder::Room(8));
  EXPECT_EQ(order.violations(), 1);
  for (const int32_t block : {7, 2}) order.on_release(leaf(block), true);
  EXPECT_EQ(order.next(), 7);  // least recently used from now on
  order.on_removed(7);
  EXPECT_EQ(order.next(), 2);
  EXPECT_EQ(order.violations(), 1);
}

TEST(Reclaim, S3FifoKeepsWhatIsFoundAgain) {
  const auto policy = make_s3fifo();
  EXPECT_EQ(policy->name(), "s3fifo");
  policy->reserve(20);
  for (int32_t block = 0; block < 6; ++block) policy->on_leaf(leaf(block));
  policy->on_use(1);  // found again
  policy->on_leaf(leaf(1, 2));
  // Those on probation leave in their order, then what was found.
  EXPECT_EQ(all_of(*policy), (Blocks{0, 2, 3, 4, 5, 1}));
  // What left on probation not long ago is no newcomer when it comes back.
  policy->on_leaf(leaf(7, 1, 102));
  for (int32_t block = 8; block < 12; ++block) policy->on_leaf(leaf(block));
  EXPECT_EQ(all_of(*policy), (Blocks{8, 9, 10, 11, 7}));
  // What left from the main queue is one.
  policy->on_leaf(leaf(12, 1, 101));
  policy->on_leaf(leaf(13));
  EXPECT_EQ(all_of(*policy), (Blocks{12, 13}));
  // What many came through passes the front of the main queue so often.
  policy->on_leaf(leaf(0, 9, 1000));
  policy->on_leaf(leaf(1, 3, 1001));
  policy->on_leaf(leaf(2, 2, 1002));
  EXPECT_EQ(all_of(*policy), (Blocks{2, 1, 0}));
  EXPECT_EQ(policy->next(), -1);
}

TEST(Reclaim, DepthKeepsWhatManyPromptsCameThrough) {
  const auto policy = make_depth();
  EXPECT_EQ(policy->name(), "depth");
  policy->reserve(20);
  // Nothing has left: there is no age to measure a credit by.
  policy->on_leaf(leaf(5, 3, 0, 1));
  policy->on_leaf(leaf(2, 1, 0, 3));
  policy->on_leaf(leaf(7, 1, 0, 3));
  policy->on_leaf(leaf(4, 2, 0, 2));
  policy->on_use(2);
  policy->on_leaf(leaf(2, 2, 0, 3));
  EXPECT_EQ(all_of(*policy), (Blocks{5, 4, 7, 2}));
  // One that nobody found leaves ten steps after its last use: credits are of twenty from now on.
  const auto aged = make_depth();
  aged->reserve(20);
  aged->on_leaf(leaf(0, 1, 0, 10));
  aged->on_leaf(leaf(1, 1, 0, 20));
  aged->on_removed(0);
  aged->on_leaf(leaf(2, 2, 0, 5));    // found once: 25
  aged->on_leaf(leaf(3, 1, 0, 24));   // 24
  aged->on_leaf(leaf(4, 1, 0, 26));   // 26
  aged->on_leaf(leaf(5, 5, 0, 1));    // four times, of which three count: 61
  aged->on_leaf(leaf(6, 1, 0, 60));   // 60
  aged->on_leaf(leaf(7, 1, 0, 62));   // 62
  aged->on_leaf(leaf(8, 1, 100, 7));  // block 0's text, which comes back: 27
  EXPECT_EQ(aged->next(), 1);
  std::vector<int32_t> left;
  for (const int32_t block : {1, 3, 2, 4, 8, 6, 5, 7}) {
    left.push_back(aged->next());
    aged->on_use(block);  // not removed: nothing changes the age
  }
  EXPECT_EQ(left, (Blocks{1, 3, 2, 4, 8, 6, 5, 7}));
  EXPECT_EQ(aged->next(), -1);
}

/// Against a plain search for the lowest rank, in any order of events.
void expect_a_heap(uint32_t seed) {
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const auto policy = make_depth();
  constexpr int32_t kBlocks = 40;
  policy->reserve(kBlocks);
  struct Rank {
    double rank;
    int order;
    int64_t last_use, times;
    uint64_t text;
  };
  std::map<int32_t, Rank> ranks;
  std::map<uint64_t, int64_t> returns;
  double age = 0;
  int64_t newest = 0;
  int aged = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto block = static_cast<int32_t>(random() % kBlocks);
    if (!ranks.contains(block)) {
      const auto prompts = static_cast<int64_t>(1 + random() % 5 / 3);
      const uint64_t text = 1000 + random() % 300;
      const int64_t last_use = i - static_cast<int64_t>(random() % 20);
      policy->on_leaf(leaf(block, prompts, text, last_use));
      newest = std::max(newest, last_use);
      const int64_t times = std::min<int64_t>(prompts - 1 + returns[text], 3);
      ranks[block] = {static_cast<double>(last_use) + 2 * age * static_cast<double>(times), i,
                      last_use, times, text};
    } else if (random() % 2 == 0) {
      policy->on_use(block);
      ranks.erase(block);
    }
    if (ranks.empty()) continue;
    const auto lowest = std::min_element(ranks.begin(), ranks.end(), [](auto& a, auto& b) {
      return std::pair(a.second.rank, a.second.order) < std::pair(b.second.rank, b.second.order);
    });
    ASSERT_EQ(policy->next(), lowest->first) << i;
    if (random() % 4 != 0) continue;
    // Whichever leaf leaves, named or not.
    const auto gone = random() % 3 == 0 ? ranks.begin() : lowest;
    if (gone->second.times == 0) {
      aged = std::min(aged + 1, 256);
      age += (static_cast<double>(newest - gone->second.last_use) - age) / aged;
    }
    ++returns[gone->second.text];
    policy->on_removed(gone->first);
    ranks.erase(gone);
  }
}

TEST(Reclaim, DepthIsAHeap) {
  for (uint32_t seed = 0; seed < 8; ++seed) expect_a_heap(seed);
}

/// Nanoseconds per event, where so many leaves are kept and as many come, are found and leave.
double cost_of(const std::string& name, int32_t n_blocks) {
  std::mt19937 random(7);
  ReclaimOrder order(make_reclaim_policy(name), n_blocks);
  for (int32_t block = 0; block < n_blocks; ++block) order.on_release(leaf(block), true);
  constexpr int kEvents = 100'000;
  double best = 1e30;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto before = std::chrono::steady_clock::now();
    for (int i = 0; i < kEvents; ++i) {
      const auto found = static_cast<int32_t>(random() % static_cast<uint32_t>(n_blocks));
      order.on_use(found);
      order.on_release(leaf(found, 2), true);
      const int32_t gone = order.next();
      order.on_removed(gone);
      order.on_release(leaf(gone, 1, random()), true);
    }
    const std::chrono::duration<double, std::nano> spent =
        std::chrono::steady_clock::now() - before;
    best = std::min(best, spent.count() / kEvents);
  }
  return best;
}

TEST(Reclaim, AnEventCostsTheSameHoweverManyBlocksAreKept) {
  for (const std::string name : {"lru", "s3fifo", "depth"}) {
    const double few = cost_of(name, 1000);
    const double many = cost_of(name, 100'000);
    RecordProperty(name + "_ns_1000", std::to_string(few));
    RecordProperty(name + "_ns_100000", std::to_string(many));
    std::printf("%s: %.0f ns among 1,000 blocks, %.0f among 100,000\n", name.c_str(), few, many);
    // A hundred times as many: caches miss more, but nothing looks at them all.
    EXPECT_LT(many, 25 * few) << name;
    EXPECT_LT(many, 20'000) << name;
  }
}

}  // namespace
}  // namespace paddock
