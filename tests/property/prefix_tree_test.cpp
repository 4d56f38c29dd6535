// The tree of kept blocks against a plain map of prefixes, under a hash that tells blocks apart and
// under some that let them collide.
#include "kv/prefix_tree.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace paddock {
namespace {

constexpr int32_t kLayers = 2;

uint64_t all_alike(uint64_t, std::span<const int32_t>) { return 7; }
uint64_t last_token(uint64_t, std::span<const int32_t> tokens) { return tokens.back() % 2; }
uint64_t by_depth(uint64_t before, std::span<const int32_t>) { return before + 1; }

using Tokens = std::vector<int32_t>;

/// Takes out the block that is to leave next.
int32_t evict(PrefixTree& tree) {
  const int32_t node = tree.next();
  const Departure how;
  tree.take_out(node, &how);
  return node;
}

/// Names the block that became a leaf first, and is told of leaves only.
class Oldest final : public ReclaimPolicy {
 public:
  std::string name() const override { return "oldest"; }
  void on_leaf(const CachedBlock& block) override {
    EXPECT_TRUE(leaves_.emplace(block.block, ++count_).second);
    EXPECT_GT(block.prompts, 0);
  }
  void on_use(int32_t block) override { EXPECT_EQ(leaves_.erase(block), 1U); }
  void on_removed(int32_t block) override { EXPECT_EQ(leaves_.erase(block), 1U); }
  int32_t next() override {
    return std::min_element(leaves_.begin(), leaves_.end(),
                            [](const auto& a, const auto& b) { return a.second < b.second; })
        ->first;
  }

 private:
  std::map<int32_t, int> leaves_;
  int count_ = 0;
};

std::unique_ptr<ReclaimPolicy> order(uint32_t seed) {
  switch (seed % 4) {
    case 0:
      return nullptr;  // least recently used
    case 1:
      return make_s3fifo();
    case 2:
      return make_depth();
    default:
      return std::make_unique<Oldest>();
  }
}

/// What the map says of a prefix: the number that its pages hold, and who has it locked.
struct Kept {
  int32_t page = 0;
  int32_t locks = 0;
};

class TreeAndMap {
 public:
  TreeAndMap(int32_t capacity, int32_t block, PrefixTree::BlockHash hash, uint32_t seed)
      : block_(block),
        capacity_(capacity),
        random_(seed),
        tree_(capacity, block, kLayers, order(seed), hash) {}

  void run(int n_steps) {
    for (int i = 0; i < n_steps && !testing::Test::HasFailure(); ++i) {
      const auto dice = random_() % 10;
      if (readers_.size() < 4 && dice < 4) {
        read();
      } else if (!readers_.empty() && dice < 9) {
        finish();
      } else if (tree_.evictable() > 0) {
        evict();
      }
      check();
    }
    EXPECT_EQ(tree_.violations(), 0);
    EXPECT_GT(matched_, n_steps / 40);
    EXPECT_GT(inserted_, n_steps / 40);
    EXPECT_GT(evicted_, n_steps / 40);
  }

 private:
  struct Reader {
    Tokens tokens;
    std::vector<int32_t> nodes;
  };

  Tokens prefix(const Tokens& tokens, size_t blocks) const {
    return {tokens.begin(), tokens.begin() + static_cast<int64_t>(blocks * block_)};
  }

  void read() {
    Reader reader;
    const size_t length = random_() % static_cast<size_t>(6 * block_ + 1);
    for (size_t i = 0; i < length; ++i) {
      reader.tokens.push_back(static_cast<int32_t>(random_() % 2));
    }
    const auto max_blocks = static_cast<int64_t>(random_() % 6);
    size_t expected = 0;
    while (static_cast<int64_t>(expected) < max_blocks &&
           (expected + 1) * block_ <= reader.tokens.size() &&
           map_.contains(prefix(reader.tokens, expected + 1))) {
      ++expected;
    }
    tree_.extend(PrefixTree::kRoot, reader.tokens, max_blocks, true, reader.nodes);
    tree_.ask(PrefixTree::kRoot, reader.tokens, max_blocks, reader.nodes);
    ASSERT_EQ(reader.nodes.size(), expected);
    for (size_t i = 0; i < expected; ++i) {
      Kept& kept = map_.at(prefix(reader.tokens, i + 1));
      for (const int32_t page : tree_.pages(reader.nodes[i])) ASSERT_EQ(page, kept.page);
      ASSERT_EQ(tree_.depth(reader.nodes[i]), static_cast<int32_t>(i));
      tree_.lock(reader.nodes[i]);
      ++kept.locks;
      ++matched_;
    }
    readers_.push_back(std::move(reader));
  }

  /// Puts the reader's further blocks into the tree, as far as there is room, and lets go.
  void finish() {
    const size_t at = random_() % readers_.size();
    Reader reader = std::move(readers_[at]);
    readers_.erase(readers_.begin() + static_cast<int64_t>(at));
    for (size_t i = reader.nodes.size(); (i + 1) * block_ <= reader.tokens.size(); ++i) {
      const int32_t parent = i == 0 ? PrefixTree::kRoot : reader.nodes.back();
      const auto tokens = std::span(reader.tokens).subspan(i * block_, block_);
      const auto known = map_.find(prefix(reader.tokens, i + 1));
      int32_t node = tree_.find(parent, tokens);
      ASSERT_EQ(node >= 0, known != map_.end());
      if (node >= 0) {
        ASSERT_EQ(tree_.pages(node)[0], known->second.page);
        tree_.lock(node);
        ++known->second.locks;
      } else {
        node = tree_.insert(parent, tokens);
        ASSERT_EQ(node < 0, static_cast<int32_t>(map_.size()) == capacity_);
        if (node < 0) break;
        for (int32_t& page : tree_.pages(node)) page = next_page_;
        map_[prefix(reader.tokens, i + 1)] = {next_page_++, 1};
        ++inserted_;
      }
      reader.nodes.push_back(node);
    }
    for (size_t i = reader.nodes.size(); i-- > 0;) {
      tree_.unlock(reader.nodes[i], 0);
      --map_.at(prefix(reader.tokens, i + 1)).locks;
    }
  }

  void evict() {
    const int32_t page = tree_.pages(paddock::evict(tree_))[1];
    const auto gone = std::find_if(map_.begin(), map_.end(),
                                   [&](const auto& entry) { return entry.second.page == page; });
    ASSERT_NE(gone, map_.end());
    ASSERT_EQ(gone->second.locks, 0);
    for (const auto& [tokens, kept] : map_) {
      const bool continues = tokens.size() > gone->first.size() &&
                             std::equal(gone->first.begin(), gone->first.end(), tokens.begin());
      ASSERT_FALSE(continues) << "leaves go before what they continue";
    }
    map_.erase(gone);
    ++evicted_;
  }

  void check() {
    tree_.check_integrity();
    int32_t evictable = 0;
    for (const auto& [tokens, kept] : map_) {
      evictable += kept.locks == 0 ? 1 : 0;
      std::vector<int32_t> nodes;
      tree_.extend(PrefixTree::kRoot, tokens, 100, false, nodes);
      ASSERT_EQ(nodes.size() * block_, tokens.size());
      ASSERT_EQ(tree_.pages(nodes.back())[0], kept.page);
    }
    ASSERT_EQ(tree_.evictable(), evictable);
    size_t n_blocks = 0;
    tree_.for_each([&](int32_t, std::span<const int32_t>) { ++n_blocks; });
    ASSERT_EQ(n_blocks, map_.size());
  }

  int32_t block_, capacity_;
  std::mt19937 random_;
  PrefixTree tree_;
  std::map<Tokens, Kept> map_;  // by all tokens up to the block's end
  std::vector<Reader> readers_;
  int32_t next_page_ = 100;
  int64_t matched_ = 0, inserted_ = 0, evicted_ = 0;
};

TEST(PrefixTreeProperty, AgreesWithAMapOfPrefixesWhateverCollides) {
  int number = 0;
  for (const PrefixTree::BlockHash hash :
       {PrefixTree::hash_block, all_alike, last_token, by_depth}) {
    ++number;
    for (const int32_t block : {1, 2, 3}) {
      for (const int32_t capacity : {3, 12, 40}) {
        SCOPED_TRACE(fmt::format("hash {} blocks of {} capacity {}", number, block, capacity));
        TreeAndMap(capacity, block, hash, static_cast<uint32_t>(capacity + block)).run(1500);
        if (HasFailure()) return;
      }
    }
  }
}

TEST(PrefixTree, BlocksOfOneHashAreToldApartByTheirTokens) {
  PrefixTree tree(8, 2, 1, nullptr, all_alike);
  const Tokens a = {1, 2}, b = {2, 1};
  const int32_t first = tree.insert(PrefixTree::kRoot, a);
  const int32_t below = tree.insert(first, b);
  EXPECT_EQ(tree.find(PrefixTree::kRoot, b), -1) << "it stands after another prefix";
  const int32_t other = tree.insert(PrefixTree::kRoot, b);
  EXPECT_EQ(tree.find(PrefixTree::kRoot, b), other);
  EXPECT_EQ(tree.find(first, b), below);
  EXPECT_EQ(tree.find(PrefixTree::kRoot, a), first);
  EXPECT_EQ(tree.find(other, b), -1);
}

TEST(PrefixTree, FindsAmongWhatContinuesABlockOneThatNothingContinues) {
  PrefixTree tree(8, 2, 1, nullptr);
  const Tokens a = {1, 2}, b = {2, 1};
  const int32_t first = tree.insert(PrefixTree::kRoot, a);
  EXPECT_EQ(tree.leaf_below(first), first);
  const int32_t last = tree.insert(tree.insert(first, a), b);
  EXPECT_EQ(tree.leaf_below(first), last);
}

TEST(PrefixTree, TheHashIsOfAllTokensInTheirOrder) {
  const auto hash = [](uint64_t before, const Tokens& tokens) {
    return PrefixTree::hash_block(before, tokens);
  };
  EXPECT_NE(hash(0, {1, 2}), hash(0, {2, 1}));
  EXPECT_NE(hash(0, {1, 2}), hash(0, {1, 3}));
  EXPECT_NE(hash(0, {1, 2}), hash(1, {1, 2}));
  EXPECT_EQ(hash(hash(0, {1, 2}), {3, 4}), hash(0, {1, 2, 3, 4}));
  EXPECT_NE(hash(0, {0, 0}), hash(0, {0}));
}

TEST(PrefixTree, ABlockThatLeftIsNotRegrettedBehindAnotherPrefix) {
  PrefixTree tree(8, 2, 1, nullptr);
  const Tokens tokens = {1, 2, 3, 4};
  const int32_t first = tree.insert(PrefixTree::kRoot, std::span(tokens).first(2));
  tree.pages(first)[0] = 5;
  tree.unlock(tree.insert(first, std::span(tokens).last(2)), 0);
  evict(tree);
  std::vector<int32_t> nodes;
  tree.extend(PrefixTree::kRoot, std::span(tokens).last(2), 9, true, nodes);
  tree.ask(PrefixTree::kRoot, std::span(tokens).last(2), 9, nodes);
  EXPECT_EQ(tree.regrets(), 0);
  tree.extend(PrefixTree::kRoot, tokens, 9, true, nodes);
  tree.ask(PrefixTree::kRoot, tokens, 9, nodes);
  EXPECT_EQ(tree.regrets(), 1);
  EXPECT_EQ(tree.lookups(), 3);
  EXPECT_EQ(tree.hits(), 1);
  // Whoever asks later is told the same, and it is regretted once.
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(tree.ask(PrefixTree::kRoot, tokens, 9, nodes).reason, MissReason::kReclaimed);
    EXPECT_EQ(tree.regrets(), 1);
  }
}

TEST(PrefixTree, WhatLeftIsRememberedForSixteenTimesItsRoomAndNoLessThanFourThousand) {
  const auto text_of = [](int32_t i) { return Tokens{i, -i}; };
  const auto pass = [&](PrefixTree& tree, int32_t from, int32_t to) {
    for (int32_t i = from; i < to; ++i) {
      tree.unlock(tree.insert(PrefixTree::kRoot, text_of(i)), i);
      evict(tree);
    }
  };
  const auto reason_of = [&](PrefixTree& tree, int32_t i) {
    return tree.ask(PrefixTree::kRoot, text_of(i), 9, {}, false).reason;
  };
  PrefixTree small(8, 2, 1, nullptr), large(1024, 2, 1, nullptr);
  pass(small, 0, 4096);
  EXPECT_EQ(reason_of(small, 0), MissReason::kReclaimed);
  pass(small, 4096, 4097);
  EXPECT_EQ(reason_of(small, 0), MissReason::kFirstSeen);
  pass(large, 0, 16 * 1024);
  EXPECT_EQ(reason_of(large, 0), MissReason::kReclaimed);
  pass(large, 16 * 1024, 16 * 1024 + 1);
  EXPECT_EQ(reason_of(large, 0), MissReason::kFirstSeen);
  EXPECT_EQ(reason_of(large, 1), MissReason::kReclaimed);
  EXPECT_EQ(large.lookups() + large.regrets(), 0) << "nobody counted";
  // Another room has what the old one knew, the newest first.
  small.move_into(small.make_room(1024, {Visibility{0, kUnlimited}}));
  EXPECT_EQ(reason_of(small, 1), MissReason::kReclaimed);
  pass(small, 5000, 5000 + 16 * 1024 - 4096);
  EXPECT_EQ(reason_of(small, 1), MissReason::kReclaimed);
  pass(small, 50'000, 50'001);
  EXPECT_EQ(reason_of(small, 1), MissReason::kFirstSeen) << "the oldest goes first";
  EXPECT_EQ(reason_of(small, 2), MissReason::kReclaimed);
  small.move_into(small.make_room(8, {Visibility{0, kUnlimited}}));
  EXPECT_EQ(reason_of(small, 50'000), MissReason::kReclaimed);
  EXPECT_EQ(reason_of(small, 2), MissReason::kFirstSeen);
}

TEST(PrefixTree, ALostSinkStaysLostWhateverElseIsMissing) {
  PrefixTree tree(8, 2, 1, nullptr);
  tree.move_into(tree.make_room(8, {Visibility{2, 4}}));
  const Tokens tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  std::vector<int32_t> all;
  for (size_t i = 0; i < 5; ++i) {
    all.push_back(
        tree.insert(i == 0 ? PrefixTree::kRoot : all.back(), std::span(tokens).subspan(2 * i, 2)));
    tree.pages(all.back())[0] = static_cast<int32_t>(i);
  }
  const auto found = [&] {
    std::vector<int32_t> nodes;
    tree.extend(PrefixTree::kRoot, tokens, 9, false, nodes);
    return nodes.size();
  };
  EXPECT_EQ(found(), 5U);
  tree.pages(all[1])[0] = -1;  // which the window has passed at the end
  EXPECT_EQ(found(), 5U);
  tree.pages(all[0])[0] = -1;
  EXPECT_EQ(found(), 0U) << "sinks are seen for ever";
}

TEST(PrefixTree, ABlockThatCameBackIsNotMissingForWhatTookItBefore) {
  PrefixTree tree(8, 2, 1, nullptr);
  const Tokens tokens = {1, 2};
  const auto put = [&] {
    const int32_t node = tree.insert(PrefixTree::kRoot, tokens);
    tree.unlock(node, 0);
    return node;
  };
  put();
  evict(tree);
  tree.take_out(put(), nullptr);  // of no use to anybody: there is nothing to remember
  EXPECT_EQ(tree.ask(PrefixTree::kRoot, tokens, 9, {}).reason, MissReason::kFirstSeen);
  EXPECT_EQ(tree.regrets(), 0);
}

TEST(PrefixTree, WhatLeftIsRememberedForThe4096LastBlocks) {
  PrefixTree tree(1, 1, 1, nullptr);
  const auto why = [&](int32_t token) {
    const Tokens tokens = {token};
    return tree.ask(PrefixTree::kRoot, tokens, 9, {}).reason;
  };
  for (int32_t token = 0; token < 4096; ++token) {
    const Tokens tokens = {token};
    tree.unlock(tree.insert(PrefixTree::kRoot, tokens), 0);
    evict(tree);
  }
  EXPECT_EQ(why(0), MissReason::kReclaimed);
  const Tokens one_more = {4096};
  tree.unlock(tree.insert(PrefixTree::kRoot, one_more), 0);
  evict(tree);
  EXPECT_EQ(why(0), MissReason::kFirstSeen) << "4,096 have left since";
  EXPECT_EQ(why(1), MissReason::kReclaimed);
}

TEST(PrefixTree, OfManyContinuationsThe256NewestAreCompared) {
  PrefixTree tree(300, 2, 1, nullptr);
  const Tokens wanted = {7, 1}, alike = {7, 0};
  tree.insert(PrefixTree::kRoot, alike);
  const auto put = [&](int32_t number) {
    const Tokens other = {8, number};
    tree.insert(PrefixTree::kRoot, other);
  };
  for (int32_t i = 1; i < 256; ++i) put(i);
  const PrefixMiss miss = tree.ask(PrefixTree::kRoot, wanted, 9, {});
  EXPECT_EQ(miss.reason, MissReason::kDiffers);
  EXPECT_EQ(miss.differs_at, 1);
  put(256);
  EXPECT_EQ(tree.ask(PrefixTree::kRoot, wanted, 9, {}).reason, MissReason::kFirstSeen);
}

TEST(PrefixTree, HashesAreRememberedOnceAndTheOldestForgotten) {
  RecentHashes<int> recent(4);
  EXPECT_FALSE(recent.take(0).has_value());
  for (const uint64_t hash : {0, 4, 8, 3}) recent.add(hash);  // three in one bucket
  EXPECT_EQ(recent.find(5), nullptr);
  EXPECT_NE(recent.find(4), nullptr);
  EXPECT_TRUE(recent.take(4).has_value());
  EXPECT_EQ(recent.find(4), nullptr);
  EXPECT_FALSE(recent.take(4).has_value());
  recent.add(8);  // in the place of the oldest, and no longer in its own
  EXPECT_FALSE(recent.take(0).has_value());
  EXPECT_TRUE(recent.take(8).has_value());
  EXPECT_FALSE(recent.take(8).has_value());
  for (const uint64_t hash : {12, 16, 20}) recent.add(hash);
  EXPECT_FALSE(recent.take(3).has_value());
  for (const uint64_t hash : {12, 16, 20}) EXPECT_TRUE(recent.take(hash).has_value());
}

}  // namespace
}  // namespace paddock
