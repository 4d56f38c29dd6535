// Follows all texts of an engine, pass by pass, with the oracle that keeps everything: each text
// has a memory of its own there, which is told what the pass's plan says of it, and nothing of
// pages. What an engine found in its cache the oracle computes itself, as if nothing had left.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>

#include "support/dense_oracle.h"
#include "support/engine_inside.h"
#include "support/followed_decisions.h"
#include "support/hooked_backend.h"

namespace paddock::test {

class FollowedTexts {
 public:
  /// What has been met on the way.
  struct Counts {
    int64_t tokens = 0;     // compared
    int64_t narrowed = 0;   // of them, that met less than all before them
    int64_t again = 0;      // of these, computed before, until their text was parked
    int64_t found = 0;      // positions that an engine did not compute
    int64_t forks = 0;      // texts that began as one that had lost something
    int64_t decisions = 0;  // of a layer, that the oracle's own scores were held against
    Counts& operator+=(const Counts& other) {
      tokens += other.tokens;
      narrowed += other.narrowed;
      again += other.again;
      found += other.found;
      forks += other.forks;
      decisions += other.decisions;
      return *this;
    }
  };

  /// `distort` spoils what the oracle is told.
  FollowedTexts(const std::shared_ptr<const Model>& model, const EngineOptions& options,
                std::function<void(std::vector<Met>&)> distort = {})
      : oracle_(*model),
        distort_(std::move(distort)),
        hook_([this](const StepPlan& plan) { follow(plan); }) {
    inside_ = make_engine_impl(model, options, make_hooked_backend);
    engine_ = std::make_unique<Engine>(inside_);
    oracle_.watch([this](int32_t layer, int64_t position, const std::vector<Met>& met,
                         const DenseOracle::Row& mass) {
      if (passing_ == nullptr) return;  // what others computed: nobody measured that for this text
      passing_->decisions[static_cast<size_t>(layer)].note_query(
          inside_->setup.options.kv.block_size, inside_->model->info().n_heads, position, met,
          mass);
    });
  }
  Engine& engine() { return *engine_; }
  Engine::Impl& inside() const { return *inside_; }
  const Counts& counts() const { return counts_; }
  /// The largest difference of a logit from the oracle's, relative to the largest of its row.
  double error() const { return error_; }

  // What the test does to sessions.
  void forked(SessionId from, SessionId to) { texts_[{true, to}] = texts_[{true, from}]; }
  void truncated(SessionId id, int64_t length) { texts_[{true, id}].cut(length); }

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  struct Text {
    std::vector<TokenId> tokens;  // whose rows the memory has
    DenseOracle::Memory memory;
    std::vector<std::pair<int64_t, int32_t>> falls{};  // of a request: where, and to what
    // [n_layers][position] the shortest length at which it was gone, the longest at which it was
    // there.
    std::vector<std::vector<int64_t>> gone, there;
    // What rules go by: of one answer to a prompt that has never been parked.
    std::vector<FollowedDecisions> decisions;  // [n_layers]
    std::vector<std::vector<char>> was_there;  // [n_layers][position] after the last pass
    int64_t next = 0;                          // where that ended
    int32_t budget = kUnlimited;               // and in it
    bool is_scored = true;
    int64_t changes = 0;  // of all budgets, when it had its last pass

    /// Back to that length, at which more may leave than had left there.
    void cut(int64_t length) {
      if (length >= static_cast<int64_t>(tokens.size())) return;
      tokens.resize(static_cast<size_t>(length));
      for (std::vector<int64_t>& layer : gone) {
        layer.resize(tokens.size(), kNever);
        for (int64_t& at : layer) at = at > length ? kNever : at;
      }
      for (std::vector<int64_t>& layer : there) {
        layer.resize(tokens.size(), 0);
        for (int64_t& at : layer) at = std::min(at, length - 1);
      }
    }
    bool has_lost() const {
      return std::any_of(gone.begin(), gone.end(), [](const auto& layer) {
        return std::any_of(layer.begin(), layer.end(), [](int64_t at) { return at != kNever; });
      });
    }
    bool begins_as(std::span<const TokenId> other, int64_t n) const {
      return n <= static_cast<int64_t>(tokens.size()) &&
             std::equal(tokens.begin(), tokens.begin() + n, other.begin());
    }
  };
  using Name = std::pair<bool, int64_t>;  // of a session or of a request

  struct Owner {
    Name name{};
    const Request* request = nullptr;
    const Sequence* sequence = nullptr;
  };
  Owner owner_of(SequenceId id) const {
    for (const auto& [number, session] : inside_->sessions) {
      if (session->sequence.is_open() && session->sequence.tables() == id) {
        return {{true, number}, nullptr, &session->sequence};
      }
    }
    for (const auto& request : inside_->scheduler->requests()) {
      if (request->sequence.is_open() && request->sequence.tables() == id) {
        return {{false, request->id}, request.get(), &request->sequence};
      }
    }
    ADD_FAILURE() << "nobody's sequence " << id;
    return {};
  }

  void follow(const StepPlan& plan) {
    if (testing::Test::HasFailure()) return;
    for (const SequenceView& part : plan.layers[0].sequences) {
      const auto at = static_cast<size_t>(&part - plan.layers[0].sequences.data());
      const Owner owner = owner_of(part.sequence);
      if (owner.sequence == nullptr) return;
      Text& text = text_of(owner, part.first_position);
      if (has_fallen_again(part, text)) text.cut(part.first_position);
      if (owner.request != nullptr) text.falls = falls_of(*owner.request, kNever);
      const std::vector<KvBudgetChange> changes = inside_->cache->budget_changes(text.changes);
      if (!changes.empty()) text.changes = changes.back().number + 1;
      check_tables(plan, at, owner, text);
      check_decisions(part, owner, text);
      std::swap(oracle_.memory(), text.memory);
      passing_ = &text;
      for (int32_t i = 0; i < part.n_tokens; ++i) compare(plan, at, i, text);
      passing_ = nullptr;
      std::swap(oracle_.memory(), text.memory);
    }
  }

  // ---- texts

  Text& text_of(const Owner& owner, int64_t known) {
    const auto [found, is_new] = texts_.try_emplace(owner.name);
    Text& text = found->second;
    const std::span<const TokenId> tokens = owner.sequence->tokens;
    if (is_new && known > 0 && has_fallen_before(owner, known)) {
      const Text* origin = answer_like(owner, known);
      EXPECT_NE(origin, nullptr) << "it begins with what nobody has computed like that";
      if (origin != nullptr) text = *origin;
      text.cut(known);
      ++counts_.forks;
    }
    const int32_t n_layers = inside_->model->info().n_layers;
    text.memory.resize(static_cast<size_t>(n_layers));
    text.gone.resize(static_cast<size_t>(n_layers));
    text.there.resize(static_cast<size_t>(n_layers));
    text.decisions.resize(static_cast<size_t>(n_layers));
    text.was_there.resize(static_cast<size_t>(n_layers));
    const auto begin = std::min<size_t>(static_cast<size_t>(known), text.tokens.size());
    const auto common =
        std::mismatch(text.tokens.begin(), text.tokens.begin() + static_cast<int64_t>(begin),
                      tokens.begin())
            .first -
        text.tokens.begin();
    if (common == known) return text;
    text.cut(common);
    EXPECT_FALSE(text.has_lost()) << "one whose budget has fallen takes what others computed";
    std::swap(oracle_.memory(), text.memory);
    for (int64_t t = common; t < known; ++t, ++counts_.found) {
      oracle_.next(tokens[static_cast<size_t>(t)], t, [&](int32_t layer, int64_t at) {
        return all_seen(inside_->cache->rule(owner.sequence->tables(), layer), at);
      });
      text.tokens.push_back(tokens[static_cast<size_t>(t)]);
    }
    std::swap(oracle_.memory(), text.memory);
    return text;
  }

  /// Whether rules had dropped something of a new request's text before it had so many positions:
  /// then it began as another answer to its prompt.
  bool has_fallen_before(const Owner& owner, int64_t length) const {
    if (owner.request == nullptr) return false;
    for (int32_t layer = 0; layer < inside_->model->info().n_layers; ++layer) {
      const LayerRule& rule = inside_->cache->rule(owner.sequence->tables(), layer);
      if (rule.trims() && !rule.is_elastic) return true;
    }
    const auto& changes = owner.request->result.budget_changes;
    return std::any_of(changes.begin(), changes.end(),
                       [&](const KvBudgetChange& c) { return c.length < length; });
  }
  static std::vector<std::pair<int64_t, int32_t>> falls_of(const Request& request, int64_t before) {
    std::vector<std::pair<int64_t, int32_t>> falls;
    for (const KvBudgetChange& c : request.result.budget_changes) {
      if (c.length < before) falls.emplace_back(c.length, c.after);
    }
    return falls;
  }
  /// The answer to the same prompt that had so many positions, after the same falls.
  const Text* answer_like(const Owner& owner, int64_t length) const {
    const RequestId first = owner.request->first_answer;
    for (RequestId id = first; id < first + owner.request->options.n; ++id) {
      const auto other = texts_.find({false, id});
      if (id == owner.request->id || other == texts_.end()) continue;
      std::vector<std::pair<int64_t, int32_t>> falls = other->second.falls;
      std::erase_if(falls, [&](const auto& fall) { return fall.first >= length; });
      if (falls == falls_of(*owner.request, length) &&
          other->second.begins_as(owner.sequence->tokens, length)) {
        return &other->second;
      }
    }
    return nullptr;
  }

  /// Whether its budget has just fallen on the way to where it had been before it was parked: what
  /// lies beyond is computed anew. So only where the pool does not hold what it had.
  bool has_fallen_again(const SequenceView& part, const Text& text) const {
    const int64_t length = part.first_position;
    if (length >= static_cast<int64_t>(text.tokens.size())) return false;
    const std::vector<KvBudgetChange> all = inside_->cache->budget_changes(text.changes);
    const int32_t budget = inside_->cache->budget(part.sequence);
    const bool has = std::any_of(all.begin(), all.end(), [&](const KvBudgetChange& c) {
      return c.sequence == part.sequence && c.length == length && c.after == budget;
    });
    if (has) {
      const PolicyMap& policies = inside_->cache->policies(inside_->cache->rules_of(part.sequence));
      const int64_t next = (static_cast<int64_t>(text.tokens.size()) / policies.interval() + 1) *
                           policies.interval();
      const int64_t blocks = next / inside_->setup.options.kv.block_size + 1;
      EXPECT_GT(blocks * policies.size(), inside_->setup.pool.n_pages)
          << "it gives nothing on its way";
    }
    return has;
  }

  // ---- what a query meets

  static bool is_visible(const Visibility& v, int64_t p, int64_t t) {
    return p < v.sinks || v.window == kUnlimited || p > t - v.window;
  }
  /// While nothing has left: what the rule says, newer keys standing nearer where it is compact.
  static std::vector<Met> all_seen(const LayerRule& rule, int64_t t) {
    std::vector<Met> out;
    for (int64_t p = 0; p <= t; ++p) {
      if (is_visible(rule.visibility, p, t)) out.push_back({p, t});
    }
    for (size_t i = 0; i < out.size() && rule.positions == Positions::kCompact; ++i) {
      out[i].query_position = out[i].position + static_cast<int64_t>(out.size() - 1 - i);
    }
    return out;
  }
  /// As the plan has it, and turned as the rule says.
  std::vector<Met> met(const StepPlan& plan, size_t part, int32_t layer, int32_t i) {
    const SequenceView& view = plan.layers[layer].sequences[part];
    const LayerRule& rule = inside_->cache->rule(view.sequence, layer);
    const int64_t t = int64_t{view.first_position} + i;
    std::vector<Met> out;
    for (const BlockEntry& e : view.entries) {
      const int32_t row = view.angle_rows[e.rotation * view.n_tokens + i];
      for (int32_t slot = e.slot_begin; slot < e.slot_end; ++slot) {
        const int64_t p = int64_t{e.first_position} + slot;
        if (p <= t && is_visible(rule.visibility, p, t)) {
          out.push_back({p, plan.angle_positions[static_cast<size_t>(row)]});
        }
      }
    }
    for (size_t n = 0; n < out.size(); ++n) {
      const auto newer = static_cast<int64_t>(out.size() - 1 - n);
      const int64_t apart = rule.positions == Positions::kCompact ? newer : t - out[n].position;
      EXPECT_EQ(out[n].query_position - out[n].position, apart)
          << "query " << t << " meets " << out[n].position << " in layer " << layer;
    }
    EXPECT_EQ(out.back().position, t);
    if (distort_) distort_(out);
    return out;
  }

  /// What is in the tables when the pass begins: everything that the rule shows until rules have
  /// dropped something; then no more than the budget in force. What has left stays away, and one
  /// that was parked has at each length what it had.
  void check_tables(const StepPlan& plan, size_t part, const Owner& owner, Text& text) {
    const int64_t length = plan.layers[0].sequences[part].first_position;
    const SequenceId id = plan.layers[0].sequences[part].sequence;
    int64_t held = 0;
    int64_t admitted = 0;
    for (size_t layer = 0; layer < plan.layers.size(); ++layer) {
      const LayerRule& rule = inside_->cache->rule(id, static_cast<int32_t>(layer));
      std::vector<char> is_there(static_cast<size_t>(length), 0);
      int64_t n = 0;
      int64_t last = -1;
      for (const BlockEntry& e : plan.layers[layer].sequences[part].entries) {
        for (int32_t slot = e.slot_begin; slot < e.slot_end; ++slot) {
          const int64_t p = int64_t{e.first_position} + slot;
          EXPECT_GT(p, last) << "in order, each once";
          last = p;
          if (p >= length) continue;
          is_there[static_cast<size_t>(p)] = 1;
          ++n;
        }
      }
      text.gone[layer].resize(text.tokens.size(), kNever);
      text.there[layer].resize(text.tokens.size(), 0);
      for (int64_t p = 0; p < length; ++p) {
        note(text.gone[layer][static_cast<size_t>(p)], text.there[layer][static_cast<size_t>(p)],
             is_there[static_cast<size_t>(p)] != 0 || !is_visible(rule.visibility, p, length),
             length, p);
      }
      const bool may_lack = owner.sequence->trims() > 0;
      for (int64_t p = 0; p < length && !may_lack; ++p) {
        EXPECT_TRUE(is_there[static_cast<size_t>(p)] != 0 ||
                    !is_visible(rule.visibility, p, length))
            << p << " of " << length << " is missing in layer " << layer;
      }
      if (!rule.is_elastic) continue;
      held += n - length % rule.schedule.every;
      admitted += inside_->cache->budget(id);
      check_oldest_first(rule, is_there);
    }
    EXPECT_LE(held, admitted) << "at " << length;
  }

  static void note(int64_t& gone, int64_t& there, bool is_there, int64_t length, int64_t p) {
    if (testing::Test::HasFailure()) return;  // one is enough
    if (is_there) {
      EXPECT_LT(length, gone) << p << " has come back";
      there = std::max(there, length);
    } else {
      EXPECT_GT(length, there) << p << " was there at this length";
      gone = std::min(gone, length);
    }
  }

  /// What has left since the last pass, by the oracle's own scores.
  void check_decisions(const SequenceView& part, const Owner& owner, Text& text) {
    text.is_scored &= owner.request != nullptr && owner.request->options.n == 1 &&
                      owner.request->result.preemptions == 0;
    if (!text.is_scored) return;
    const int32_t budget = inside_->cache->budget(part.sequence);
    // Where a budget falls that had fallen before, both budgets decide there, one after the other.
    const bool is_one = text.budget == budget || text.budget == kUnlimited;
    const auto n_layers = static_cast<int32_t>(text.was_there.size());
    for (int32_t layer = 0; layer < n_layers; ++layer) {
      const LayerRule& rule = inside_->cache->rule(part.sequence, layer);
      std::vector<char> now(static_cast<size_t>(part.first_position), 0);
      for (const BlockEntry& e : inside_->cache->table(part.sequence, layer)) {
        for (int64_t p = int64_t{e.first_position} + e.slot_begin;
             p < std::min<int64_t>(int64_t{e.first_position} + e.slot_end, part.first_position);
             ++p) {
          now[static_cast<size_t>(p)] = 1;
        }
      }
      std::vector<char>& before = text.was_there[static_cast<size_t>(layer)];
      const bool is_next = text.next == part.first_position && before.size() == now.size();
      if (is_one && is_next && budget != kUnlimited && FollowedDecisions::knows(rule)) {
        const TrimSchedule schedule =
            rule.shares_by_need ? rule.schedule : rule.schedule_with(budget, layer, n_layers);
        counts_.decisions += text.decisions[static_cast<size_t>(layer)].check(
                                 rule, schedule, inside_->setup.options.kv.block_size, before, now,
                                 text.memory[static_cast<size_t>(layer)], oracle_)
                                 ? 1
                                 : 0;
      }
      before = std::move(now);
      before.resize(static_cast<size_t>(part.first_position + part.n_tokens), 1);
    }
    text.next = int64_t{part.first_position} + part.n_tokens;
    text.budget = budget;
  }

  /// Of rules that go by age alone: there is one gap, and it begins behind the sinks' block.
  static void check_oldest_first(const LayerRule& rule, const std::vector<char>& is_there) {
    const bool is_sink = rule.name.starts_with("sink");
    if (!is_sink && !rule.name.starts_with("window")) return;
    const auto first = std::find(is_there.begin(), is_there.end(), 0);
    const auto next = std::find(first, is_there.end(), 1);
    EXPECT_EQ(std::find(next, is_there.end(), 0), is_there.end()) << rule.name;
    const int64_t kept = first - is_there.begin();
    if (first == is_there.end()) return;
    EXPECT_GE(kept, is_sink ? std::atoi(rule.name.c_str() + 5) : 0) << rule.name;
  }

  // ---- what comes of it

  void compare(const StepPlan& plan, size_t part, int32_t i, Text& text) {
    const SequenceView& view = plan.layers[0].sequences[part];
    const int32_t flat = view.first_token + i;
    const int64_t t = int64_t{view.first_position} + i;
    const TokenId token = plan.tokens[static_cast<size_t>(flat)];
    const bool is_again = t < static_cast<int64_t>(text.tokens.size()) &&
                          text.tokens[static_cast<size_t>(t)] == token;
    if (!is_again) text.cut(t);
    std::vector<DenseOracle::Row> before;
    for (size_t layer = 0; is_again && layer < plan.layers.size(); ++layer) {
      before.push_back(oracle_.memory()[layer].keys[static_cast<size_t>(t)]);
    }
    bool is_narrow = false;
    const DenseOracle::Row expected = oracle_.next(token, t, [&](int32_t layer, int64_t) {
      std::vector<Met> out = met(plan, part, layer, i);
      is_narrow |= static_cast<int64_t>(out.size()) <= t;
      return out;
    });
    for (size_t layer = 0; layer < before.size(); ++layer) {
      const DenseOracle::Row& now = oracle_.memory()[layer].keys[static_cast<size_t>(t)];
      for (size_t k = 0; k < now.size() && !testing::Test::HasFailure(); ++k) {
        EXPECT_NEAR(now[k], before[layer][k], 1e-9) << "position " << t << " is computed otherwise";
      }
    }
    if (!is_again) text.tokens.push_back(token);
    ++counts_.tokens;
    counts_.narrowed += is_narrow ? 1 : 0;
    counts_.again += is_narrow && is_again ? 1 : 0;
    note_error(plan, flat, expected);
  }

  void note_error(const StepPlan& plan, int32_t flat, const DenseOracle::Row& expected) {
    if (flat % kLogitTile == 0) {
      inside_->step_runner->compute_rows(flat, std::min(kLogitTile, plan.n_tokens() - flat));
    }
    const std::span<const float> row = inside_->step_runner->row(flat % kLogitTile);
    double largest = 0;
    double apart = 0;
    for (size_t k = 0; k < row.size(); ++k) {
      const double e = std::fabs(row[k] - expected[k]);
      if (!(e <= apart)) apart = e;  // NaN counts
      largest = std::max(largest, std::fabs(expected[k]));
    }
    if (!(apart / largest <= error_)) error_ = apart / largest;
  }

  DenseOracle oracle_;
  std::map<Name, Text> texts_;
  Counts counts_;
  double error_ = 0;
  std::function<void(std::vector<Met>&)> distort_;
  Text* passing_ = nullptr;  // whose queries the oracle computes
  AfterPass hook_;
  std::shared_ptr<Engine::Impl> inside_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace paddock::test
