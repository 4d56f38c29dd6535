// Random use of an engine from a seed: requests of several answers, sessions, forks, feeds and
// cancellations in a memory that is too small, and whether each answer is what it is alone.
#pragma once

#include <fmt/format.h>

#include <map>
#include <random>

#include "kv/policy_map.h"
#include "support/engine_inside.h"
#include "support/live_bytes.h"
#include "support/rule_examples.h"
#include "support/shared_memory.h"

namespace paddock::test {

/// What was asked for: by a request, or (n_tokens < 0) of a feed.
struct Turn {
  size_t begin = 0, length = 0;  // of text_at()
  int32_t n_tokens = 0;
  uint64_t seed = 0;
  std::string policy{};  // that its text goes by; empty: the engine's own
  auto operator<=>(const Turn&) const = default;

  GenerateOptions options() const {
    GenerateOptions o = greedy(n_tokens);
    o.sampling.temperature = 1.1F;
    o.sampling.seed = seed;
    o.kv_policy = policy;
    return o;
  }
};

/// What turns one after another make alone.
class References {
 public:
  explicit References(EngineOptions options) {
    options.max_sequences = 1;
    options.kv.budget_bytes = 0;
    engine_ = std::make_unique<Engine>(tiny(), options);
  }
  const std::vector<TokenId>& of(const std::vector<Turn>& turns) {
    const auto [at, is_new] = known_.try_emplace(turns);
    if (!is_new) return at->second;
    const SessionId session = engine_->open_session();
    for (Turn turn : turns) {
      const std::vector<TokenId> text = text_at(turn.begin, turn.length);
      turn.policy.clear();  // these are what the engine has
      if (turn.n_tokens < 0) {
        engine_->feed(session, text);
      } else {
        at->second = engine_->generate(session, text, turn.options()).tokens;
      }
    }
    engine_->close_session(session);
    return at->second;
  }

 private:
  std::unique_ptr<Engine> engine_;
  std::map<std::vector<Turn>, std::vector<TokenId>> known_;
};

/// Of sequences under this rule that nothing is taken from.
inline References& references_of(const std::string& policy, Precision precision) {
  static std::map<std::pair<std::string, Precision>, References> known;
  EngineOptions options = shared_memory(policy, 0);
  options.precision = precision;
  return known.try_emplace({policy, precision}, options).first->second;
}

/// Fails one allocation of the engine's, if it is told to: not those of the test.
class FailOne {
 public:
  /// After so many; below 0: none.
  explicit FailOne(int64_t after = -1) : left_(after), armed_(after >= 0) {}
  /// Whether it has come to that.
  bool failed() const { return armed_ && left_ < 0; }
  /// Calls the engine. False if it found no memory: only where an allocation was failed here, or
  /// `may_lack` says that it may find no page or place.
  template <typename Fn>
  bool call(const Fn& fn, bool may_lack = false) {
    const bool before = failed();
    g_fail_after = left_;
    bool good = true;
    try {
      fn();
    } catch (const Error& e) {
      take_back();
      good = false;
      const bool is_place = e.code() == ErrorCode::kInvalidArgument;  // of those that run
      EXPECT_TRUE(e.code() == ErrorCode::kOutOfMemory || (may_lack && is_place)) << e.what();
      EXPECT_TRUE(may_lack || (failed() && !before)) << e.what();
    }
    if (good) take_back();
    return good;
  }

 private:
  void take_back() { left_ = g_fail_after.exchange(-1); }
  int64_t left_;
  bool armed_;
};

/// The fewest pages under an elastic rule, as far as steps of four tell.
inline int64_t least_pool(const std::string& policy) {
  static std::map<std::string, int64_t> known;
  int64_t& pages = known[policy];
  for (int64_t n = 8; pages == 0; n += 4) {
    try {
      Engine(tiny(), shared_memory(policy, n));
      pages = n;
    } catch (const Error&) {  // too few
    }
  }
  return pages;
}

class RandomSchedule {
 public:
  /// Everything follows from the seed, but the rule where one is given.
  /// `resizes`: the host changes the budget now and then.
  explicit RandomSchedule(uint32_t seed, std::string policy = {}, int n_acts = 30,
                          bool resizes = false)
      : random_(seed), n_acts_(n_acts), resizes_(resizes) {
    if (policy.empty()) {
      const std::vector<RuleExample> rules = rule_examples();
      policy = rules[static_cast<size_t>(draw(0, static_cast<int>(rules.size()) - 1))].policy;
    }
    begin(policy, {});
  }
  /// Sequences go by one or another of several rules.
  RandomSchedule(uint32_t seed, const std::string& policy, std::vector<std::string> others,
                 int n_acts = 30, bool resizes = false)
      : random_(seed), n_acts_(n_acts), resizes_(resizes), others_(std::move(others)) {
    begin(policy, others_);
  }
  const EngineOptions& options() const { return options_; }

  /// Uses the engine, which has nothing to do at the end. `inside`: of it, to look at tables.
  void run(Engine& engine, FailOne& fail, const Engine::Impl* inside = nullptr) {
    inside_ = inside;
    for (int i = 0; i < n_acts_ && !testing::Test::HasFailure(); ++i) {
      act(engine, fail);
      engine.check_integrity();
    }
    bool busy = true;
    for (int steps = 0; busy && steps < 20'000; ++steps) {
      fail.call([&] { busy = engine.step(); });
      engine.check_integrity();
      look();
    }
    EXPECT_FALSE(busy) << "nobody gets on";
    collect(engine);
    for (const Talk& talk : talks_) engine.close_session(talk.id);
    talks_.clear();
    expect_nothing_held(engine);
    EXPECT_EQ(engine.kv_stats().policy_violations, 0);
  }

  /// Compares what came of it. Answers that found no memory may be as many as `may_fail`.
  void check(References& references, int may_fail) const {
    check([&](const std::string&) -> References& { return references; }, may_fail);
  }
  /// With references for each rule, by references_of(SPEC).
  void check(const std::function<References&(const std::string&)>& references_of,
             int may_fail) const {
    int failed = 0;
    for (const Ask& ask : asks_) {
      ASSERT_TRUE(ask.ended) << "request " << ask.id;
      if (ask.reason == FinishReason::kError) {
        ++failed;
        EXPECT_NE(ask.error.find("memory"), std::string::npos) << ask.error;
      }
      check_changes(ask);
      if (!ask.is_known) continue;
      const std::vector<TokenId>& expected =
          references_of(policy_of(ask.turns[0].policy)).of(ask.turns);
      if (ask.n_before_falls < ask.tokens.size()) {  // it loses something on the way
        EXPECT_TRUE(std::equal(ask.tokens.begin(),
                               ask.tokens.begin() + static_cast<int64_t>(ask.n_before_falls),
                               expected.begin()))
            << "request " << ask.id;
      } else if (ask.reason == FinishReason::kLength) {
        EXPECT_EQ(ask.tokens, expected) << "request " << ask.id;
      } else if (ask.reason != FinishReason::kError) {
        EXPECT_TRUE(ask.reason == FinishReason::kCancelled || ask.reason == FinishReason::kKvFull ||
                    ask.reason == FinishReason::kContext)
            << finish_reason_name(ask.reason);
        ASSERT_LE(ask.tokens.size(), expected.size());
        EXPECT_TRUE(std::equal(ask.tokens.begin(), ask.tokens.end(), expected.begin()));
      }
    }
    EXPECT_LE(failed, may_fail);
  }
  int64_t preemptions() const { return preemptions_; }
  /// Budgets that fell, and were lifted.
  int64_t falls() const { return falls_; }
  int64_t lifts() const { return lifts_; }
  /// Sequences that came back after they were parked, with a budget that had fallen.
  int64_t returns() const { return returns_; }
  /// Budgets of the pool that the host set, and that were refused.
  int64_t budgets_set() const { return n_set_; }
  int64_t budgets_refused() const { return n_refused_; }
  /// Answers that ended because the pool was full.
  int64_t kv_full() const {
    return std::count_if(asks_.begin(), asks_.end(),
                         [](const Ask& ask) { return ask.reason == FinishReason::kKvFull; });
  }
  /// All that became of it, in order.
  const std::string& log() const { return log_; }

 private:
  static bool is_elastic(const std::string& policy) {
    return PolicyMap::parse(policy, tiny()->info().n_layers).is_elastic();
  }
  static int64_t least_of(const std::string& policy) {
    return is_elastic(policy) ? least_pool(policy) : tight_pool(policy);
  }
  const std::string& policy_of(const std::string& named) const {
    return named.empty() ? options_.kv.policy : named;
  }

  /// Whether a rule is elastic in some layers, and has no bound in others.
  static bool outgrows(const std::string& policy) {
    const PolicyMap map = PolicyMap::parse(policy, tiny()->info().n_layers);
    bool is = false;
    for (int32_t layer = 0; layer < map.size() && map.is_elastic(); ++layer) {
      is |= !map.layer(layer).is_elastic && !map.layer(layer).bounded();
    }
    return is;
  }
  void begin(const std::string& policy, const std::vector<std::string>& others) {
    int64_t least = least_of(policy);
    is_elastic_ = is_elastic(policy);
    for (const std::string& other : others) {
      is_elastic_ |= is_elastic(other);
      least = std::max(least, least_of(other));
    }
    least_ = least;
    may_outgrow_ = resizes_ || outgrows(policy);
    for (const std::string& other : others) may_outgrow_ |= outgrows(other);
    if (is_elastic_) least += draw(0, 8);
    options_ = shared_memory(policy, least + draw(0, 8), draw(2, 5));
    options_.kv.other_policies = others;
    options_.batch_size = draw(1, 24);
    options_.mixed_prefill = draw(1, 12);
    options_.kv.reuse = draw(0, 3) > 0;
    const std::vector<std::string> orders = reclaim_names();
    options_.kv.reclaim = orders[static_cast<size_t>(draw(0, static_cast<int>(orders.size()) - 1))];
    const std::vector<Precision> exact = exact_precisions();
    options_.precision = exact[static_cast<size_t>(draw(0, static_cast<int>(exact.size()) - 1))];
    if (!resizes_) return;
    options_.kv.max_budget_bytes =
        options_.kv.budget_bytes + options_.kv.budget_bytes * static_cast<uint64_t>(draw(0, 8)) / 4;
    options_.kv.pressure = draw(0, 5) == 0 ? KvPressure::kPreempt : KvPressure::kTrim;
  }
  /// One of those that there are; empty: the engine's own.
  std::string draw_policy() {
    if (others_.empty()) return {};
    const int at = draw(0, static_cast<int>(others_.size()));
    return at == 0 ? std::string() : others_[static_cast<size_t>(at) - 1];
  }

  /// A session, and what was said in it.
  struct Talk {
    SessionId id = 0;
    std::string policy;
    std::vector<Turn> turns;
    bool is_known = true;  // no turn of it was cut off
    bool busy = false;
    int64_t length = 0;
  };
  /// One answer.
  struct Ask {
    RequestId id = 0;
    std::vector<Turn> turns;
    bool is_known = true;
    SessionId session = 0;
    bool ended = false, discarded = false;
    FinishReason reason{};
    std::string error;
    std::vector<TokenId> tokens;
    int64_t begin = 0;  // position of its first token
    size_t n_before_falls = 0;
    std::vector<KvBudgetChange> changes;
  };
  /// A text's tables when it was last seen.
  struct Seen {
    int64_t length = 0;
    int32_t budget = 0;
    std::string tables;
    bool was_parked = false;
  };

  /// Budgets fall at decision lengths, after one lift at most, and never rise.
  void check_changes(const Ask& ask) const {
    for (size_t i = 0; i < ask.changes.size(); ++i) {
      const KvBudgetChange& c = ask.changes[i];
      EXPECT_TRUE(i == 0 || c.before == ask.changes[i - 1].after);
      if (c.after == kUnlimited) {
        EXPECT_EQ(i, 0U);
        EXPECT_NE(ask.session, 0U);
        continue;
      }
      EXPECT_LE(c.after, c.before);
      EXPECT_GE(c.pages, 0);
      const PolicyMap policies =
          PolicyMap::parse(policy_of(ask.turns[0].policy), tiny()->info().n_layers);
      ASSERT_GT(policies.interval(), 0) << "its rule has no budget that falls";
      EXPECT_EQ(c.length % policies.interval(), 0);
    }
  }

  std::string tables_of(SequenceId id) const {
    std::string out;
    for (int32_t layer = 0; layer < tiny()->info().n_layers; ++layer) {
      for (const BlockEntry& e : inside_->cache->table(id, layer)) {
        out += fmt::format("{}:{}-{}/{} ", e.first_position, e.slot_begin, e.slot_end, e.rotation);
      }
      for (const Rotation& r : inside_->cache->rotations(id, layer)) {
        out += fmt::format("[{} {}] ", r.query_shift, r.query_cap);
      }
    }
    return out;
  }

  /// Whoever was parked lists what it listed when it has come back.
  void look() {
    if (inside_ == nullptr) return;
    std::map<const Sequence*, Seen> now;
    const auto add = [&](const Sequence& sequence) {
      const auto known = seen_.find(&sequence);
      Seen seen = known == seen_.end() ? Seen{} : known->second;
      const int64_t at = sequence.computed();
      if (!sequence.is_open() || at < sequence.reached()) {
        seen.was_parked = true;
      } else {
        const int32_t budget = inside_->cache->budget(sequence.tables());
        const std::string tables = tables_of(sequence.tables());
        if (seen.was_parked && seen.length == at && seen.budget == budget && at > 0 && !resizes_) {
          EXPECT_EQ(tables, seen.tables) << "at " << at << ", budget " << budget;
          returns_ += budget == kUnlimited ? 0 : 1;
        }
        seen = {at, budget, tables, false};
      }
      now[&sequence] = seen;
    };
    for (const auto& request : inside_->scheduler->requests()) {
      if (request->session == nullptr) add(request->sequence);
    }
    for (const auto& [id, session] : inside_->sessions) add(session->sequence);
    seen_ = std::move(now);
  }

  int draw(int from, int to) { return std::uniform_int_distribution<int>(from, to)(random_); }
  Turn draw_turn(int most) {
    return {static_cast<size_t>(draw(0, 3)),
            static_cast<size_t>(draw(1, most)),
            draw(1, is_elastic_ ? 40 : 14),
            static_cast<uint64_t>(draw(0, 3)),
            {}};
  }

  void act(Engine& engine, FailOne& fail) {
    const int what = draw(0, 19);
    if (resizes_ && draw(0, 3) == 0) {
      resize(engine, fail);
    } else if (what < 6) {
      add(engine, fail);
    } else if (what < 8 || (is_elastic_ && what > 16)) {
      talk(engine, fail);
    } else if (what == 8) {
      fork(engine, fail);
    } else if (what == 9) {
      feed(engine, fail);
    } else if (is_elastic_ && what == 10 && draw(0, 1) == 0) {
      truncate(engine);
    } else if (what == 10 && !asks_.empty()) {
      const RequestId id =
          asks_[static_cast<size_t>(draw(0, static_cast<int>(asks_.size()) - 1))].id;
      fail.call([&] { engine.cancel(id); });
    } else {
      for (int steps = draw(1, 8); steps > 0; --steps) {
        fail.call([&] { engine.step(); });
        engine.check_integrity();
        look();
      }
    }
    collect(engine);
  }

  void add(Engine& engine, FailOne& fail) {
    Turn turn = draw_turn(50);
    turn.policy = draw_policy();
    GenerateOptions asked = turn.options();
    asked.n = std::max(1, draw(-2, 4));
    asked.priority = draw(-1, 1);
    const std::vector<TokenId> text = text_at(turn.begin, turn.length);
    RequestId id = 0;
    if (!fail.call([&] { id = engine.add(text, asked); }, may_outgrow_)) return;
    for (int32_t i = 0; i < asked.n; ++i) {
      Turn own = turn;
      own.seed += static_cast<uint64_t>(i);
      asks_.emplace_back().id = id + i;
      asks_.back().turns = {own};
      asks_.back().begin = static_cast<int64_t>(turn.length);
    }
  }

  /// A session that no request uses; null: there is none.
  Talk* idle_talk() {
    for (Talk& talk : talks_) {
      if (!talk.busy) return &talk;
    }
    return nullptr;
  }

  void talk(Engine& engine, FailOne& fail) {
    Talk* const known = idle_talk();
    if (known == nullptr || known->length > (is_elastic_ ? 80 : 60)) {
      // One place stays for the others.
      if (static_cast<int32_t>(talks_.size()) + 1 >= options_.max_sequences) return;
      SessionId id = 0;
      const std::string policy = draw_policy();
      fail.call([&] { id = engine.open_session({.kv_policy = policy}); }, true);
      if (id != 0) talks_.push_back({id, policy, {}, true, false, 0});
      return;
    }
    Turn turn = draw_turn(16);
    turn.policy = known->policy;
    GenerateOptions asked = turn.options();
    asked.priority = draw(-1, 1);
    const std::vector<TokenId> text = text_at(turn.begin, turn.length);
    RequestId id = 0;
    const int64_t begin = engine.session_length(known->id) + static_cast<int64_t>(turn.length);
    if (!fail.call([&] { id = engine.add(known->id, text, asked); }, may_outgrow_)) return;
    known->busy = true;
    known->turns.push_back(turn);
    asks_.emplace_back().id = id;
    asks_.back().turns = known->turns;
    asks_.back().is_known = known->is_known;
    asks_.back().begin = begin;
    asks_.back().session = known->id;
  }

  /// Too little and too much included.
  void resize(Engine& engine, FailOne& fail) {
    const int64_t least = is_elastic_ ? least_ : 8;
    const auto most = static_cast<int>(engine.kv_stats().pool_max_pages);
    const auto pages = draw(static_cast<int>(least) - 4, most + 2);
    const auto bytes = static_cast<uint64_t>(pages * engine.kv_stats().page_bytes);
    const int64_t before = engine.kv_stats().pool_pages;
    const bool done = fail.call([&] { engine.set_kv_budget(bytes); }, true);
    ++(done ? n_set_ : n_refused_);
    EXPECT_EQ(engine.kv_stats().pool_pages, done ? pages : before);
    EXPECT_TRUE(done || fail.failed() || pages > most || pages < 60) << pages;
  }

  void fork(Engine& engine, FailOne& fail) {
    Talk* const from = idle_talk();
    if (from == nullptr || static_cast<int32_t>(talks_.size()) + 1 >= options_.max_sequences)
      return;
    Talk next = *from;
    if (fail.call([&] { next.id = engine.fork_session(next.id); }, true)) talks_.push_back(next);
  }

  void feed(Engine& engine, FailOne& fail) {
    Talk* const to = idle_talk();
    if (to == nullptr || to->length > 60) return;
    Turn turn = draw_turn(16);
    turn.n_tokens = -1;
    turn.policy = to->policy;
    const std::vector<TokenId> text = text_at(turn.begin, turn.length);
    to->turns.push_back(turn);
    const int64_t falls = engine.kv_stats().budget_falls;
    to->is_known &= fail.call([&] { engine.feed(to->id, text); }, true);
    to->is_known &= engine.kv_stats().budget_falls == falls;  // perhaps its own
    to->length = engine.session_length(to->id);
  }

  void truncate(Engine& engine) {
    Talk* const of = idle_talk();
    if (of == nullptr) return;
    const int64_t length = engine.session_length(of->id);
    try {
      engine.truncate(of->id, std::max<int64_t>(0, length - draw(0, 20)));
      of->is_known = false;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
    }
    of->length = engine.session_length(of->id);
  }

  void collect(Engine& engine) {
    for (Ask& ask : asks_) {
      if (ask.ended) continue;
      const std::optional<GenerateResult> result = engine.take(ask.id);
      if (!result) continue;
      ask.ended = true;
      ask.reason = result->finish_reason;
      ask.error = result->error;
      ask.tokens = result->tokens;
      preemptions_ += result->preemptions;
      ask.changes = result->budget_changes;
      ask.n_before_falls = ask.tokens.size();
      bool has_fallen = false;
      for (const KvBudgetChange& c : ask.changes) {
        (c.after == kUnlimited ? lifts_ : falls_) += 1;
        log_ += fmt::format("{}: {} at {}, {} to {}, {} pages for {}\n", ask.id, c.step, c.length,
                            c.before, c.after, c.pages, c.request);
        if (c.after == kUnlimited) continue;
        has_fallen = true;
        const auto n = static_cast<size_t>(std::max<int64_t>(0, c.length - ask.begin + 1));
        ask.n_before_falls = std::min(ask.n_before_falls, n);
      }
      log_ += fmt::format("{} {} {}\n", ask.id, finish_reason_name(ask.reason),
                          fmt::join(ask.tokens, " "));
      for (Talk& talk : talks_) {
        if (talk.id != ask.session) continue;
        talk.busy = false;
        talk.is_known &= ask.reason == FinishReason::kLength && !has_fallen;
        talk.length = engine.session_length(talk.id);
      }
    }
  }

  std::mt19937 random_;
  int n_acts_;
  bool resizes_;
  int64_t least_ = 8;  // pages that all rules need
  std::vector<std::string> others_;
  bool may_outgrow_ = false;  // the pool, with one prompt
  EngineOptions options_;
  std::vector<Ask> asks_;
  std::vector<Talk> talks_;
  int64_t preemptions_ = 0, falls_ = 0, lifts_ = 0, returns_ = 0;
  int64_t n_set_ = 0, n_refused_ = 0;
  bool is_elastic_ = false;
  const Engine::Impl* inside_ = nullptr;
  std::map<const Sequence*, Seen> seen_;
  std::string log_;
};

}  // namespace paddock::test
