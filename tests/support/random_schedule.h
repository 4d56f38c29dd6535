// Random use of an engine from a seed: requests of several answers, sessions, forks, feeds and
// cancellations in a memory that is too small, and whether each answer is what it is alone. Where
// the host is whimsical (random_host.h) also pins, protected positions, and what it does to itself.
#pragma once

#include <fmt/format.h>

#include <map>
#include <optional>
#include <random>
#include <thread>

#include "kv/policy_map.h"
#include "support/fail_one.h"
#include "support/parked_tables.h"
#include "support/random_host.h"
#include "support/random_pins.h"
#include "support/references.h"
#include "support/rule_examples.h"

namespace paddock::test {

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
  /// Everything follows from the seed, but the rule where one is given, and what comes after a
  /// deadline that is near: that one goes by the clock.
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
  /// Lets the host be whimsical; before the engine is made, which the schedule outlives.
  void let_host_be_whimsical() {
    hooks_.emplace();
    hooks_->install(draws(), options_.kv);
    options_.kv.budget_bytes *=
        static_cast<uint64_t>(std::max(1, draw(-1, 3)));  // pins hold longer
    if (is_moody(options_.kv.policy)) options_.kv.custom_policies = moody_policies();
  }
  const EngineOptions& options() const { return options_; }

  /// Uses the engine, which has nothing to do at the end. `inside`: of it, to look at tables.
  void run(Engine& engine, FailOne& fail, const Engine::Impl* inside = nullptr) {
    if (inside != nullptr) tables_.emplace(*inside, resizes_);
    for (int i = 0; i < n_acts_ && !testing::Test::HasFailure(); ++i) {
      act(engine, fail);
      engine.check_integrity();
    }
    bool busy = true;
    for (int steps = 0; busy && steps < 20'000; ++steps) busy = step(engine, fail);
    EXPECT_FALSE(busy) << "nobody gets on";
    collect(engine);
    for (const Ask& ask : asks_) {
      EXPECT_FALSE(ask.discarded && engine.take(ask.id)) << "nobody wanted it";
    }
    n_pins_lost_ += engine.stats().pins_lost;
    pins_.let_go(engine);
    for (const Talk& talk : talks_) engine.close_session(talk.id);
    talks_.clear();
    expect_nothing_held(engine);
    const KvStats stats = engine.kv_stats();
    const bool may_lie = options_.kv.custom_reclaim || is_moody(options_.kv.policy);
    EXPECT_TRUE(may_lie || stats.policy_violations == 0) << stats.last_violation;
    violations_ += stats.policy_violations;
    EXPECT_EQ(stats.hook_failures, hooks_ ? hooks_->failures() : 0);
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
      if (ask.discarded) continue;
      ASSERT_TRUE(ask.ended) << "request " << ask.id;
      if (ask.reason == FinishReason::kError && !ask.has_failed) {
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
      } else if (ask.reason != FinishReason::kError || ask.has_failed) {
        EXPECT_TRUE(ask.reason == FinishReason::kCancelled || ask.reason == FinishReason::kKvFull ||
                    ask.reason == FinishReason::kContext ||
                    (hooks_ && ask.reason == FinishReason::kDeadline) || ask.has_failed)
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
  int64_t returns() const { return tables_ ? tables_->returns() : 0; }
  /// Requests that ended because their host failed; those that it forgot, that found what was
  /// pinned, and that ended with the step after they were told to.
  int64_t failures() const { return n_failed_; }
  int64_t discards() const { return n_discarded_; }
  int64_t found_pinned() const { return n_found_; }
  int64_t pins_lost() const { return n_pins_lost_; }
  int64_t told() const { return n_told_; }
  /// Positions that were protected; answers of policies that were overruled.
  int64_t protections() const { return n_protected_; }
  int64_t violations() const { return violations_; }
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
    return PolicyMap::parse(calm(policy), tiny()->info().n_layers).is_elastic();
  }
  static int64_t least_of(const std::string& policy) {
    return is_elastic(policy) ? least_pool(policy) : tight_pool(calm(policy));
  }
  const std::string& policy_of(const std::string& named) const {
    return named.empty() ? options_.kv.policy : named;
  }

  /// Whether a rule is elastic in some layers, and has no bound in others.
  static bool outgrows(const std::string& policy) {
    const PolicyMap map = PolicyMap::parse(calm(policy), tiny()->info().n_layers);
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
    options_ = shared_memory(calm(policy), least + draw(0, 8), draw(2, 5));
    options_.kv.policy = policy;
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
    RequestId request = 0;  // that uses it, or used it last
  };
  /// One answer.
  struct Ask {
    RequestId id = 0;
    std::vector<Turn> turns;
    bool is_known = true;
    SessionId session = 0;
    bool ended = false, discarded = false;
    bool was_cancelled = false;
    bool is_told = false;         // to end, and how many tokens it had made by then,
    int64_t made_when_told = -1;  // if that is known
    std::stop_source stop{std::nostopstate};
    std::optional<std::chrono::steady_clock::time_point> deadline{};  // that will pass
    Whim whim{};
    bool has_failed = false;                 // by that
    std::optional<PinExpectation> pinned{};  // that its prompt begins with
    FinishReason reason{};
    std::string error;
    std::vector<TokenId> tokens;
    int64_t begin = 0;  // position of its first token
    size_t n_before_falls = 0;
    std::vector<KvBudgetChange> changes;
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

  Draw draws() {
    return [this](int from, int to) { return draw(from, to); };
  }
  int draw(int from, int to) { return std::uniform_int_distribution<int>(from, to)(random_); }
  Turn draw_turn(int most) {
    return {static_cast<size_t>(draw(0, 3)),
            static_cast<size_t>(draw(1, most)),
            draw(1, is_elastic_ ? 40 : 14),
            static_cast<uint64_t>(draw(0, 3)),
            {},
            false};
  }

  void act(Engine& engine, FailOne& fail) {
    const int what = draw(0, 19);
    if (resizes_ && draw(0, 3) == 0) {
      resize(engine, fail);
    } else if (what < 6) {
      add(engine, fail);
    } else if (hooks_ && draw(0, 3) == 0) {
      host_acts(engine, fail);
    } else if (what < 8 || (is_elastic_ && what > 16)) {
      talk(engine, fail);
    } else if (what == 8) {
      fork(engine, fail);
    } else if (what == 9) {
      feed(engine, fail);
    } else if (is_elastic_ && what == 10 && draw(0, 1) == 0) {
      truncate(engine);
    } else if (what == 10 && !asks_.empty()) {
      Ask& ask = asks_[static_cast<size_t>(draw(0, static_cast<int>(asks_.size()) - 1))];
      ask.was_cancelled = true;
      fail.call([&] { engine.cancel(ask.id); });
    } else {
      for (int steps = draw(1, 8); steps > 0; --steps) step(engine, fail);
    }
    collect(engine);
  }

  /// False if there was nothing to do.
  bool step(Engine& engine, FailOne& fail) {
    std::vector<RequestId> told;
    for (const Ask& ask : asks_) {
      if (ask.is_told && !ask.ended) told.push_back(ask.id);
    }
    bool busy = true;
    const bool good = fail.call([&] { busy = engine.step(); });
    engine.check_integrity();
    if (tables_) tables_->look();
    if (!good || !hooks_) return busy;
    for (const RequestId id : told) {
      const RequestState state = engine.status(id).state;
      EXPECT_TRUE(state == RequestState::kFinished || state == RequestState::kUnknown)
          << "request " << id << " was told to end";
    }
    if (busy) pins_.passed(engine);
    return busy;
  }

  /// What may be done inside a callback, too.
  void use_books(Engine& engine, FailOne& fail, bool inside) {
    switch (draw(0, 5)) {
      case 0:
        return add(engine, fail);
      case 1:
      case 2:
      case 3:
        return pins_.pin(engine, draw_policy(), draws(), inside);
      case 4:
        return pins_.unpin(engine, draws());
      default:
        return end_one(engine, inside);
    }
  }
  void host_acts(Engine& engine, FailOne& fail) {
    if (draw(0, 4) == 0) return protect(engine);
    use_books(engine, fail, false);
  }

  /// Ends a request, in one way or another.
  void end_one(Engine& engine, bool inside) {
    std::vector<Ask*> open;
    for (Ask& ask : asks_) {
      if (!ask.ended && !ask.discarded && !ask.is_told) open.push_back(&ask);
    }
    if (open.empty()) return;
    Ask& ask = *open[static_cast<size_t>(draw(0, static_cast<int>(open.size()) - 1))];
    ask.is_told = ask.was_cancelled = true;
    if (!inside) ask.made_when_told = engine.status(ask.id).made_tokens;
    if (draw(0, 2) == 0) {
      engine.discard(ask.id);
      ask.discarded = true;
      ++n_discarded_;
    } else if (ask.deadline) {
      std::this_thread::sleep_until(*ask.deadline);
    } else if (ask.stop.stop_possible() && draw(0, 1) == 0) {
      ask.stop.request_stop();
    } else {
      engine.cancel(ask.id);
    }
  }

  /// Positions of a session, where its rules can heed that.
  void protect(Engine& engine) {
    Talk* const of = idle_talk();
    if (of == nullptr || is_elastic_) return;
    Turn turn{static_cast<size_t>(draw(0, 60)), static_cast<size_t>(draw(1, 6)),
              draw(0, 3) == 0 ? kUnprotected : kProtected, 0, of->policy};
    const auto first = static_cast<int64_t>(turn.begin), n = static_cast<int64_t>(turn.length);
    try {
      turn.n_tokens == kProtected ? engine.protect(of->id, first, n)
                                  : engine.unprotect(of->id, first, n);
      of->turns.push_back(turn);
      ++n_protected_;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
    }
  }

  /// Gives a request what its host does to it.
  void be_whimsical(Engine& engine, FailOne& fail, GenerateOptions& asked, Ask& ask) {
    if (!hooks_) return;
    ask.whim = Whim::drawn(draws());
    ask.whim.give(asked, [this, &engine, &fail, left = 2]() mutable {
      if (left-- > 0) use_books(engine, fail, true);
    });
    if (ask.whim.kind == Whim::Kind::kIsInTime) ask.deadline = asked.deadline;
    if (ask.whim.kind == Whim::Kind::kStopped || draw(0, 1) == 0) return;
    ask.stop = std::stop_source();
    asked.stop_token = ask.stop.get_token();
  }

  void add(Engine& engine, FailOne& fail) {
    Turn turn = draw_turn(50);
    turn.policy = draw_policy();
    turn.bans = hooks_ && draw(0, 3) == 0;
    // Alone with a pin, some have no room.
    if (hooks_ && draw(0, 3) == 0) turn.length += static_cast<size_t>(draw(0, 30));
    if (hooks_) pins_.lengthen(draws(), turn.begin, turn.length, turn.policy);
    GenerateOptions asked = turn.options();
    asked.n = std::max(1, draw(-2, 4));
    asked.priority = draw(-1, 1);
    Ask ask;
    be_whimsical(engine, fail, asked, ask);
    const std::vector<TokenId> text = text_at(turn.begin, turn.length);
    if (hooks_ && asked.n == 1 && !is_elastic_)
      ask.pinned = pins_.beginning(engine, turn.policy, text);
    RequestId id = 0;
    if (!fail.call([&] { id = engine.add(text, asked); }, may_outgrow_)) return;
    for (int32_t i = 0; i < asked.n; ++i) {
      Turn own = turn;
      own.seed += static_cast<uint64_t>(i);
      asks_.push_back(ask);
      asks_.back().id = id + i;
      asks_.back().turns = {own};
      asks_.back().begin = static_cast<int64_t>(turn.length);
      // One that is stopped takes the other answers along.
      if (asked.n > 1) asks_.back().stop = std::stop_source(std::nostopstate);
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
    turn.bans = hooks_ && draw(0, 3) == 0;
    GenerateOptions asked = turn.options();
    asked.priority = draw(-1, 1);
    Ask ask;
    be_whimsical(engine, fail, asked, ask);
    const std::vector<TokenId> text = text_at(turn.begin, turn.length);
    RequestId id = 0;
    const int64_t begin = engine.session_length(known->id) + static_cast<int64_t>(turn.length);
    if (!fail.call([&] { id = engine.add(known->id, text, asked); }, may_outgrow_)) return;
    known->busy = true;
    known->request = id;
    known->turns.push_back(turn);
    asks_.push_back(ask);
    asks_.back().id = id;
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
    turn.n_tokens = kFed;
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
    for (Talk& talk : talks_) {  // whose request was discarded
      const bool is_gone = talk.busy && engine.status(talk.request).state == RequestState::kUnknown;
      if (!is_gone) continue;
      talk.busy = talk.is_known = false;
      talk.length = engine.session_length(talk.id);
    }
    for (Ask& ask : asks_) {
      if (ask.ended || ask.discarded) continue;
      const std::optional<GenerateResult> result = engine.take(ask.id);
      if (!result) continue;
      ask.ended = true;
      if (hooks_) judge(engine, ask, *result);
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

  /// What has to be so of a result beside its tokens.
  void judge(const Engine& engine, Ask& ask, const GenerateResult& result) {
    SCOPED_TRACE(fmt::format("request {}", ask.id));
    ask.whim.check(result, ask.turns.back().n_tokens);
    EXPECT_TRUE(ask.was_cancelled || ask.whim.may_cancel() ||
                result.finish_reason != FinishReason::kCancelled)
        << "nobody did that";
    EXPECT_TRUE(ask.whim.may_expire() || result.finish_reason != FinishReason::kDeadline);
    ask.has_failed = ask.whim.has_failed(result);
    n_failed_ += ask.has_failed ? 1 : 0;
    if (ask.made_when_told >= 0) {
      EXPECT_EQ(static_cast<int64_t>(result.tokens.size()), ask.made_when_told)
          << "it was to end with the next step";
      ++n_told_;
    }
    if (ask.pinned && !result.tokens.empty() && pins_.still_holds(engine, *ask.pinned)) {
      EXPECT_GE(result.cached_tokens, ask.pinned->tokens) << "what is pinned stays";
      ++n_found_;
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
  int64_t preemptions_ = 0, falls_ = 0, lifts_ = 0;
  int64_t n_set_ = 0, n_refused_ = 0;
  int64_t n_failed_ = 0, n_discarded_ = 0, n_found_ = 0, n_told_ = 0, n_protected_ = 0;
  int64_t n_pins_lost_ = 0;
  int64_t violations_ = 0;
  bool is_elastic_ = false;
  std::optional<ParkedTables> tables_;
  std::optional<WhimsicalHooks> hooks_;  // none: the host has no whims
  RandomPins pins_;
  std::string log_;
};

}  // namespace paddock::test
