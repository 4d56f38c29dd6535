// Ten thousand requests whose prompts begin alike by Zipf's law, through a memory of a tenth of
// what they need: all are right, memory stays flat, and what the engine counts is what a count of
// the test's own says. A fifth of them where PADDOCK_TEST_WHOLE is not set.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <random>
#include <set>

#include "support/live_bytes.h"
#include "support/small_requests.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

constexpr int kBeginnings = 40, kEndings = 5, kBlock = 4;
constexpr int kBeginningBlocks = 8;
constexpr int32_t kAnswer = 24;

std::vector<TokenId> prompt_at(int beginning, int ending) {
  std::vector<TokenId> tokens;
  std::minstd_rand random(static_cast<uint32_t>(beginning + 1));
  for (int i = 0; i < kBeginningBlocks * kBlock; ++i) {
    tokens.push_back(static_cast<TokenId>(random() % 96));
  }
  for (int i = 0; i < 3 + ending; ++i) tokens.push_back((7 * ending + i) % 96);
  return tokens;
}

/// Zipf's law over the beginnings.
class Zipf {
 public:
  Zipf() {
    for (int i = 0; i < kBeginnings; ++i)
      sums_.push_back((sums_.empty() ? 0 : sums_.back()) + 1.0 / (i + 1));
  }
  int draw(std::mt19937& random) const {
    const double at = sums_.back() * (random() / 4294967296.0);
    return static_cast<int>(std::upper_bound(sums_.begin(), sums_.end(), at) - sums_.begin());
  }

 private:
  std::vector<double> sums_;
};

/// What the test itself knows of blocks: which were ever asked for, and by whom they are there.
struct Books {
  std::set<std::vector<TokenId>> asked, computed;  // texts up to a block's end
  int64_t hits = 0, misses = 0, regrets = 0, preemptions = 0, reclaimed = 0, ended = 0;

  static std::vector<TokenId> up_to(const std::vector<TokenId>& text, int64_t n) {
    return {text.begin(), text.begin() + n};
  }
  void ask(const std::vector<TokenId>& prompt) {
    for (size_t n = kBlock; n <= prompt.size(); n += kBlock) asked.insert(up_to(prompt, n));
  }
  void end(const std::vector<TokenId>& prompt, const GenerateResult& result) {
    std::vector<TokenId> text = prompt;
    text.insert(text.end(), result.tokens.begin(), result.tokens.end() - 1);
    for (size_t n = kBlock; n <= text.size(); n += kBlock) {
      computed.insert(up_to(text, n));
      asked.insert(up_to(text, n));
    }
    preemptions += result.preemptions;
    ++ended;
  }
};

TEST(ManyRequests, OfZipfsLawAreAllRightInATenthOfTheirMemory) {
  const int n_requests = std::getenv("PADDOCK_TEST_WHOLE") != nullptr ? 10'000 : 2'000;
  const TemporaryFolder folder;
  const auto model = tiny_model(folder, {}, 5);
  EngineOptions options = small_options(4);
  options.batch_size = 32;
  std::vector<std::vector<TokenId>> prompts, expected;
  {
    Engine alone(model, options);
    for (int i = 0; i < kBeginnings * kEndings; ++i) {
      prompts.push_back(prompt_at(i / kEndings, i % kEndings));
      expected.push_back(alone.generate(prompts.back(), greedy(kAnswer)).tokens);
    }
  }
  // All beginnings and all endings with their answers, if nothing ever left.
  constexpr int kNeed = kBeginnings * (kBeginningBlocks + kEndings * 7);
  Books books;
  options.kv.on_event = [&](const KvEvent& event) {
    if (event.reason == RemovalReason::kCapacity) ++books.reclaimed;
  };
  const int64_t block_bytes = [&] {
    const KvStats stats = Engine(model, options).kv_stats();
    return stats.page_bytes * stats.pages_per_block;
  }();
  options.kv.budget_bytes = static_cast<uint64_t>(kNeed / 10 * block_bytes);
  options.max_sequences = 16;
  Engine engine(model, options);

  struct Running {
    RequestId id;
    size_t prompt;
  };
  std::deque<Running> running;
  std::mt19937 random(11);
  const Zipf zipf;
  int64_t live_early = 0;
  int added = 0;
  while (books.ended < n_requests) {
    while (added < n_requests && running.size() < 20) {
      const auto at = static_cast<size_t>(zipf.draw(random) * kEndings + random() % kEndings);
      running.push_back({engine.add(prompts[at], greedy(kAnswer)), at});
      books.ask(prompts[at]);
      ++added;
    }
    ASSERT_TRUE(engine.step());
    if (books.ended % 16 == 0) engine.check_integrity();
    for (auto id = engine.finished_after(0); id; id = engine.finished_after(*id)) {
      const auto at = std::find_if(running.begin(), running.end(),
                                   [&](const Running& r) { return r.id == *id; });
      ASSERT_NE(at, running.end());
      const std::vector<TokenId>& prompt = prompts[at->prompt];
      const GenerateResult result = *engine.take(*id);
      ASSERT_EQ(result.tokens, expected[at->prompt]);
      const PrefixMiss& miss = result.miss;
      // One that was half-way through a block when another had computed that lists it whole.
      books.hits += (result.cached_tokens + kBlock - 1) / kBlock;
      if (miss.reason != MissReason::kNone) {
        ++books.misses;
        const auto block = Books::up_to(prompt, miss.position + kBlock);
        if (miss.reason == MissReason::kReclaimed) {
          ++books.regrets;
          EXPECT_TRUE(books.asked.contains(block));
        }
      }
      books.end(prompt, result);
      running.erase(at);
    }
    if (live_early == 0 && books.ended >= n_requests / 2) live_early = g_live_bytes;
  }
  const int64_t growth = g_live_bytes - live_early;
  if (kCountsBytes) {
    EXPECT_LT(std::abs(growth), 64 << 10) << "memory is not flat";
  }
  const KvStats stats = engine.kv_stats();
  EXPECT_EQ(stats.prefix_hits, books.hits);
  EXPECT_EQ(stats.prefix_lookups, books.hits + books.misses);
  EXPECT_EQ(stats.reclaim_regrets, books.regrets);
  EXPECT_EQ(engine.stats().preemptions, books.preemptions);
  EXPECT_EQ(stats.total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)],
            books.reclaimed);
  EXPECT_GT(books.preemptions, 0);
  EXPECT_GT(books.regrets, n_requests / 10);
  EXPECT_GT(books.hits, n_requests);
  expect_nothing_held(engine);
  RecordProperty("hit_rate", fmt::format("{:.3f}", static_cast<double>(books.hits) /
                                                       static_cast<double>(stats.prefix_lookups)));
  fmt::print("{} requests: {} of {} lookups hit, {} regretted, {} preemptions\n", n_requests,
             books.hits, stats.prefix_lookups, books.regrets, books.preemptions);
}

}  // namespace
}  // namespace paddock::test
