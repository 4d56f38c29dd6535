// Ten thousand requests whose prompts begin alike by Zipf's law, through a memory of a tenth of
// what they need: all are right, memory stays flat, and what the engine counts is what a count of
// the test's own says: of the tokens that the backend ran, of blocks by their texts, and of
// requests seen parked between steps.
#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "engine/engine_impl.h"
#include "support/hooked_backend.h"
#include "support/live_bytes.h"
#include "support/shared_memory.h"
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
  // Texts up to a block's end, and how many pages had been reclaimed when one was computed last.
  std::set<std::vector<TokenId>> asked;
  std::map<std::vector<TokenId>, int64_t> computed;
  std::set<std::pair<std::vector<TokenId>, int64_t>> regrets;  // and the step that took it
  int64_t hits = 0, misses = 0, parked = 0, reclaimed = 0, ended = 0;
  int64_t in_answers = 0, cached = 0, again = 0;  // tokens

  static std::vector<TokenId> up_to(const std::vector<TokenId>& text, int64_t n) {
    return {text.begin(), text.begin() + n};
  }
  void ask(const std::vector<TokenId>& prompt) {
    for (size_t n = kBlock; n <= prompt.size(); n += kBlock) asked.insert(up_to(prompt, n));
  }
  /// Of the full blocks of the prompt: how many pages had been reclaimed when they were computed,
  /// for one that has ended; -1: never.
  std::vector<int64_t> known(const std::vector<TokenId>& prompt) const {
    std::vector<int64_t> out;
    for (size_t n = kBlock; n <= prompt.size(); n += kBlock) {
      const auto at = computed.find(up_to(prompt, static_cast<int64_t>(n)));
      out.push_back(at == computed.end() ? -1 : at->second);
    }
    return out;
  }
  void end(const std::vector<TokenId>& prompt, const GenerateResult& result) {
    std::vector<TokenId> text = prompt;
    text.insert(text.end(), result.tokens.begin(), result.tokens.end() - 1);
    for (size_t n = kBlock; n <= text.size(); n += kBlock) {
      computed[up_to(text, n)] = reclaimed;
      asked.insert(up_to(text, n));
    }
    in_answers += static_cast<int64_t>(text.size());
    cached += result.cached_tokens;
    again += result.recomputed_tokens;
    ++ended;
  }
};

TEST(ManyRequests, OfZipfsLawAreAllRightInATenthOfTheirMemory) {
  constexpr int n_requests = 10'000;
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
  options.max_sequences = 48;
  Engine engine(make_engine_impl(model, options, make_hooked_backend));
  g_tokens_run = 0;

  struct Running {
    RequestId id;
    size_t prompt;
    std::vector<int64_t> known;  // of its blocks, when it came
    bool is_parked = false;
  };
  std::deque<Running> running;
  std::mt19937 random(11);
  const Zipf zipf;
  int64_t live_early = 0, live_late = 0, own_bytes = 0;  // of the books, which grow
  const auto apart = [&](const auto& write) {
    const int64_t before = g_live_bytes;
    write();
    own_bytes += g_live_bytes - before;
  };
  int added = 0;
  while (books.ended < n_requests) {
    while (added < n_requests && running.size() < 60) {
      const auto at = static_cast<size_t>(zipf.draw(random) * kEndings + random() % kEndings);
      running.push_back({engine.add(prompts[at], greedy(kAnswer)), at, books.known(prompts[at])});
      apart([&] { books.ask(prompts[at]); });
      ++added;
    }
    ASSERT_TRUE(engine.step());
    for (Running& r : running) {
      const bool is_parked = engine.status(r.id).state == RequestState::kParked;
      books.parked += is_parked && !r.is_parked ? 1 : 0;
      r.is_parked = is_parked;
    }
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
      // What a parked one had before is not looked for a second time.
      if (miss.reason != MissReason::kNone && !miss.again) {
        ++books.misses;
        const auto block = Books::up_to(prompt, miss.position + kBlock);
        const int64_t since = at->known[static_cast<size_t>(miss.position / kBlock)];
        if (miss.reason == MissReason::kReclaimed) {
          apart([&] { books.regrets.insert({block, miss.step}); });
          EXPECT_TRUE(books.asked.contains(block));
        } else {
          // What was there once has been reclaimed, and of the last 4,096 blocks that is known.
          EXPECT_TRUE(since < 0 || books.reclaimed - since > 2 * 4096)
              << miss_reason_name(miss.reason);
        }
      }
      apart([&] { books.end(prompt, result); });
      running.erase(at);
    }
    // With as many under way.
    if (live_early == 0 && books.ended >= n_requests / 2) live_early = g_live_bytes - own_bytes;
    if (books.ended <= n_requests * 9 / 10) live_late = g_live_bytes - own_bytes;
  }
  const int64_t growth = live_late - live_early;
  if (kCountsBytes) {
    EXPECT_LT(std::abs(growth), 64 << 10) << "memory is not flat";
  }
  const KvStats stats = engine.kv_stats();
  const auto n_regrets = static_cast<int64_t>(books.regrets.size());
  EXPECT_EQ(stats.prefix_hits, books.hits);
  EXPECT_EQ(stats.prefix_lookups, books.hits + books.misses);
  EXPECT_EQ(stats.reclaim_regrets, n_regrets);
  EXPECT_EQ(engine.stats().preemptions, books.parked);
  EXPECT_EQ(g_tokens_run, books.in_answers - books.cached + books.again);
  EXPECT_EQ(stats.total.pages_removed[static_cast<size_t>(RemovalReason::kCapacity)],
            books.reclaimed);
  EXPECT_GT(books.parked, 5);
  EXPECT_GT(n_regrets, n_requests / 10);
  EXPECT_GT(books.hits, n_requests);
  expect_nothing_held(engine);
  RecordProperty("hit_rate", fmt::format("{:.3f}", static_cast<double>(books.hits) /
                                                       static_cast<double>(stats.prefix_lookups)));
  fmt::print("{} requests: {} of {} lookups hit, {} regretted, {} preemptions\n", n_requests,
             books.hits, stats.prefix_lookups, n_regrets, books.parked);
}

TEST(ManyRequests, ThatWaitCostWhatTheirTokensCost) {
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new";
  const TemporaryFolder folder;
  TinyShape shape;
  shape.vocab_size = 40'000;  // what a sampler of one holds is 160,000 bytes at least
  Engine engine(tiny_model(folder, shape, 5), small_options(1));
  engine.add(std::vector<TokenId>(4, 7), greedy(40));
  engine.step();
  const std::vector<TokenId> prompt(30, 7);
  GenerateOptions drawing = greedy(20);  // which takes room for every token there is
  drawing.sampling.temperature = 0.7F;
  drawing.sampling.repeat_penalty = 1.1F;
  const LiveBytes bytes;
  constexpr int kWaiting = 200;
  for (int i = 0; i < kWaiting; ++i) engine.add(prompt, drawing);
  EXPECT_LT(bytes.most(), kWaiting * (int64_t{4} * 30 + 3'000));
  const int64_t before = g_live_bytes;
  finish_all(engine);
  // One sampler at a time was made, and results wait to be taken.
  EXPECT_LT(g_most_live_bytes - before, 3 * 160'000 + kWaiting * 3'000);
}

}  // namespace
}  // namespace paddock::test
