// What the statistics should say, counted from the records of a trace alone: positions that each
// layer lists, one by one, and every counter.
#pragma once

#include <gtest/gtest.h>
#include <paddock/trace.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace paddock::test {

inline std::string line_of(const KvEvent& e) {
  // to_json() leaves scores of overruled blocks out.
  return to_json(e) + " " + std::to_string(e.score) + " " + std::to_string(e.runner_up_score) +
         " " + std::to_string(e.rank) + " " + std::to_string(e.left_together) + " " +
         std::to_string(e.sufficient_budget) + " " + std::to_string(e.runner_up_position);
}

class TraceRecount {
 public:
  struct Layer {
    int64_t allocated = 0, retained = 0, merged = 0, read = 0, decisions = 0;
    std::array<int64_t, kRemovalReasons> removed{};
    std::map<int32_t, std::set<int64_t>> resident;  // by sequence
  };

  void read(std::string_view bytes) {
    extent = read_trace(bytes, "trace", [this](const TraceRecord& record) { take(record); });
  }
  void take(const TraceRecord& record) {
    step = record.step;
    std::visit([this](const auto& what) { count(what); }, record.what);
  }

  /// Compares every counter, all removals and all budget changes that the engine remembers.
  void compare(const Engine& engine) const {
    const KvStats stats = engine.kv_stats();
    ASSERT_EQ(layers.size(), stats.layers.size());
    for (size_t i = 0; i < layers.size(); ++i) {
      SCOPED_TRACE("layer " + std::to_string(i));
      const KvLayerStats& s = stats.layers[i];
      EXPECT_EQ(s.pages_allocated, layers[i].allocated);
      EXPECT_EQ(s.pages_removed, layers[i].removed);
      EXPECT_EQ(s.pages_retained, layers[i].retained);
      EXPECT_EQ(s.pages_merged, layers[i].merged);
      EXPECT_EQ(s.tokens_read, layers[i].read);
      EXPECT_EQ(s.trim_decisions, layers[i].decisions);
      EXPECT_EQ(s.policy, rules.layers[i].policy);
    }
    EXPECT_EQ(stats.block_size, header.block_size);
    EXPECT_EQ(stats.page_bytes, header.page_bytes);
    EXPECT_EQ(stats.pool_pages, header.pool_pages);
    EXPECT_EQ(stats.type, header.kv_type);
    EXPECT_EQ(stats.steps, steps);
    EXPECT_EQ(stats.tokens_written, written);
    EXPECT_EQ(stats.sequences, static_cast<int32_t>(open.size()));
    EXPECT_EQ(stats.reservations_refused, refused);
    EXPECT_EQ(stats.policy_violations, violations);
    EXPECT_EQ(stats.policy_shortfalls, shortfalls);
    EXPECT_EQ(stats.prefix_lookups, lookups);
    EXPECT_EQ(stats.prefix_hits, hits);
    EXPECT_EQ(stats.reclaim_regrets, regrets);
    EXPECT_EQ(stats.budget_falls, falls);
    EXPECT_EQ(stats.budget_lifts, lifts);
    EXPECT_EQ(stats.events, events.size());
    ASSERT_EQ(stats.events_lost, 0U);
    const std::vector<KvEvent> told = engine.kv_events();
    ASSERT_EQ(told.size(), events.size());
    for (size_t i = 0; i < told.size(); ++i) {
      ASSERT_EQ(line_of(told[i]), line_of(events[i].event)) << "event " << i;
    }
    const std::vector<KvBudgetChange> changes = engine.kv_budget_changes();
    ASSERT_EQ(changes.size(), budgets.size());
    for (size_t i = 0; i < changes.size(); ++i) {
      ASSERT_EQ(to_json(changes[i]), to_json(budgets[i])) << "change " << i;
    }
    const std::vector<KvPreemption> parks = engine.kv_preemptions();
    ASSERT_EQ(parks.size(), preemptions.size());
    for (size_t i = 0; i < parks.size(); ++i) {
      ASSERT_EQ(to_json(parks[i]), to_json(preemptions[i])) << "preemption " << i;
    }
    const EngineStats totals = engine.stats();
    ASSERT_EQ(static_cast<int64_t>(parks.size()), totals.preemptions + totals.sessions_parked);
    compare_blocks(engine);
  }

  /// What each layer lists of each sequence.
  void compare_blocks(const Engine& engine) const {
    for (size_t i = 0; i < layers.size(); ++i) {
      std::map<int32_t, std::set<int64_t>> listed;
      for (const KvBlock& block : engine.kv_blocks(static_cast<int32_t>(i))) {
        for (int64_t p = 0; p < block.n_tokens; ++p) {
          listed[block.sequence].insert(block.first_position + p);
        }
      }
      std::map<int32_t, std::set<int64_t>> own;
      for (const auto& [sequence, positions] : layers[i].resident) {
        if (!positions.empty()) own[sequence] = positions;
      }
      ASSERT_EQ(listed, own) << "layer " << i;
    }
  }

  TraceExtent extent;
  TraceHeader header;
  TraceRules rules;
  std::map<int32_t, TraceRules> sets;
  std::map<int32_t, int32_t> rules_of;  // by sequence
  std::vector<Layer> layers;
  std::vector<TraceRemoval> events;
  std::vector<KvBudgetChange> budgets;
  std::vector<KvPreemption> preemptions;
  std::vector<TraceRequest> requests;
  std::vector<TraceMemory> memory;
  std::vector<TraceFinish> finished;
  std::map<int64_t, std::string> texts;  // by request: its tokens, as numbers
  std::set<int32_t> open, pins;
  std::map<int32_t, std::set<int64_t>> protections;  // positions, by sequence
  std::map<int32_t, int64_t> length;
  int64_t step = 0, steps = 0, written = 0, refused = 0, violations = 0, shortfalls = 0;
  int64_t lookups = 0, hits = 0, regrets = 0, falls = 0, lifts = 0;
  int64_t pages_free = -1, pages_cached = -1, parked = 0, runs = 0, candidates = 0, ranked = 0;
  std::map<std::pair<int32_t, int64_t>, uint64_t> hashes;  // sequence and block
  std::map<int32_t, std::vector<int32_t>> tokens;          // by sequence
  std::map<int32_t, std::string> pieces;
  bool is_ended = false;
  bool is_replayed = false;  // the decision at hand

 private:
  void count(const TraceHeader& h) {
    header = h;
    layers.resize(static_cast<size_t>(h.n_layers));
  }
  void count(const TraceRules& r) {
    if (r.number == 0) rules = r;
    sets[r.number] = r;
  }
  void count(const TraceMemory& m) { memory.push_back(m); }
  void count(const TraceRequest& r) { requests.push_back(r); }
  void count(const TraceRun&) { ++runs; }
  void count(const TraceFinish& f) { finished.push_back(f); }
  void count(const TraceStepBegin&) {}
  void count(const TraceStepEnd&) {}
  void count(const TraceTick& t) {
    ++steps;
    pages_free = t.pages_free;
    pages_cached = t.pages_cached;
  }
  void count(const TraceOpen& o) {
    (o.is_pin ? pins : open).insert(o.sequence);
    length[o.sequence] = 0;
    rules_of[o.sequence] = o.rules;
    tokens[o.sequence].clear();
    protections[o.sequence].clear();
  }
  void count(const TraceClose& c) {
    open.erase(c.sequence);
    pins.erase(c.sequence);
    parked += c.reason == RemovalReason::kPreempt ? 1 : 0;
    for (Layer& layer : layers) layer.resident[c.sequence].clear();
  }
  void count(const TraceProtection& p) {
    int64_t end = -1;
    std::set<int64_t>& its = protections[p.sequence];
    its.clear();
    for (const TraceProtection::Range& range : p.ranges) {
      EXPECT_GT(range.first_position, end) << "ranges are apart";
      EXPECT_GT(range.n_tokens, 0);
      end = range.first_position + range.n_tokens;
      for (int64_t i = range.first_position; i < end; ++i) its.insert(i);
    }
  }
  void count(const TraceFork& f) {
    length[f.to] = length[f.from];
    tokens[f.to] = tokens[f.from];
    for (Layer& layer : layers) {
      const std::set<int64_t> its = layer.resident[f.from];
      layer.resident[f.to] = its;
    }
  }
  void count(const TraceCommit& c) {
    written += c.n_tokens;
    const int64_t first = c.length - c.n_tokens;
    ASSERT_EQ(length[c.sequence], first);
    for (size_t i = 0; i < layers.size(); ++i) {
      const TraceRules::Layer& rule = sets.at(rules_of.at(c.sequence)).layers[i];
      std::set<int64_t>& its = layers[i].resident[c.sequence];
      const bool trims = rule.is_elastic || rule.schedule.budget != kUnlimited;
      for (int64_t t = first; t < c.length; ++t) {
        its.insert(t);
        const int64_t most = int64_t{rule.visibility.sinks} + rule.visibility.window;
        layers[i].read += trims || !rule.visibility.bounded() ? static_cast<int64_t>(its.size())
                                                              : std::min(t + 1, most);
        if (trims || rule.visibility.bounded()) continue;
        ASSERT_EQ(static_cast<int64_t>(its.size()), t + 1);
      }
      layers[i].allocated += c.pages_per_layer;
    }
    length[c.sequence] = c.length;
  }
  void count(const TraceTokens& t) {
    ASSERT_EQ(t.first_position + static_cast<int64_t>(t.ids.size()), length[t.sequence]);
    std::vector<int32_t>& its = tokens[t.sequence];
    its.resize(static_cast<size_t>(t.first_position), -1);
    its.insert(its.end(), t.ids.begin(), t.ids.end());
  }
  void count(const TracePiece& p) { pieces[p.id] = p.bytes; }
  void count(const TraceBlock& b) { hashes[{b.sequence, b.block}] = b.hash; }
  void count(const TracePrefix& p) {
    ASSERT_EQ(length[p.sequence], p.from);
    length[p.sequence] = p.to;
    lookups += p.lookups;
    hits += p.hits;
  }
  void count(const TraceListed& l) {
    for (int64_t p = 0; p < l.n_tokens; ++p) {
      layers[static_cast<size_t>(l.layer)].resident[l.sequence].insert(l.first_position + p);
    }
  }
  void count(const TraceMiss& m) {
    lookups += m.lookups;
    regrets += m.regrets;
  }
  void count(const TraceCut& c) {
    length[c.sequence] = c.length;
    for (Layer& layer : layers) {
      std::set<int64_t>& its = layer.resident[c.sequence];
      its.erase(its.lower_bound(c.length), its.end());
    }
  }
  void take_out(int32_t layer, int32_t sequence, int64_t first, int64_t n) {
    std::set<int64_t>& its = layers[static_cast<size_t>(layer)].resident[sequence];
    for (int64_t p = first; p < first + n; ++p) {
      ASSERT_EQ(its.erase(p), 1U) << "layer " << layer << ", position " << p << " is not there";
    }
  }
  void count(const TracePassed& p) { take_out(p.layer, p.sequence, p.first_position, p.n_tokens); }
  void count(const TraceCopy& c) { ++layers[static_cast<size_t>(c.layer)].allocated; }
  void count(const TraceMerge& m) { ++layers[static_cast<size_t>(m.layer)].merged; }
  void count(const TraceRefusal&) { ++refused; }
  void count(const TraceDecision& d) {
    is_replayed = d.is_replayed;
    ++layers[static_cast<size_t>(d.layer)].decisions;
    EXPECT_EQ(d.length, length[d.sequence]);
    EXPECT_EQ(d.tokens, static_cast<int64_t>(
                            layers[static_cast<size_t>(d.layer)].resident[d.sequence].size()));
  }
  void count(const TraceCandidates& c) {
    for (const TraceCandidates::Block& block : c.blocks) {
      ++candidates;
      ranked += block.is_ranked ? 1 : 0;
      EXPECT_FALSE(block.is_ranked && block.is_protected);
    }
  }
  void count(const TraceRemoval& r) {
    const KvEvent& e = r.event;
    events.push_back(r);
    Layer& layer = layers[static_cast<size_t>(e.layer)];
    ++layer.removed[static_cast<size_t>(e.reason)];
    layer.retained += r.retained ? 1 : 0;
    if (e.reason == RemovalReason::kPolicyTrim && !is_replayed) {
      const std::set<int64_t>& kept = protections[e.sequence];
      const auto next = kept.lower_bound(e.first_position);
      EXPECT_TRUE(next == kept.end() || *next >= e.first_position + e.n_tokens)
          << "position " << e.first_position << " was protected";
    }
    if (e.sequence >= 0) take_out(e.layer, e.sequence, e.first_position, e.n_tokens);
  }
  void count(const TraceBudget& b) {
    budgets.push_back(b.change);
    ++(b.change.after == kUnlimited ? lifts : falls);
  }
  void count(const TracePreemption& p) {
    preemptions.push_back(p.preemption);
    EXPECT_FALSE(open.contains(p.preemption.sequence)) << "it has been closed";
  }
  void count(const TraceLimit& l) { header.pool_pages = l.pool_pages; }
  void count(const TraceViolation& v) { ++(v.what.empty() ? shortfalls : violations); }
  void count(const TraceEnd&) { is_ended = true; }
};

}  // namespace paddock::test
