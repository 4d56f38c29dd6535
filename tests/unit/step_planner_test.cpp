// The plan of a step, against the tables it is made from: what a backend is told of every token,
// and that what it measured comes back to the block it belongs to.
#include "engine/step_planner.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

namespace paddock {
namespace {

constexpr int32_t kSequences = 3;

/// What a sequence's table was when its last plan was made.
struct Before {
  std::vector<int64_t> versions;  // [n_layers]
  std::vector<std::vector<BlockEntry>> tables;
};

class Plans {
 public:
  Plans(const std::string& spec, int32_t n_layers, int32_t block, int32_t max_tokens)
      : n_layers_(n_layers),
        max_tokens_(max_tokens),
        cache_({n_layers, 2, block, 4000, 64, kSequences, 150, 10},
               PolicyMap::parse(spec, n_layers)),
        planner_(cache_, max_tokens),
        before_(kSequences) {}

  void run(int n_steps) {
    for (int i = 0; i < n_steps && !testing::Test::HasFailure(); ++i) {
      if (live_.size() < kSequences && random_() % 6 == 0) live_.push_back(cache_.open());
      step();
      if (!live_.empty() && random_() % 25 == 0) {
        cache_.close(live_.back());
        live_.pop_back();
      }
    }
    EXPECT_GE(2 * kept_, grown_) << "most of a table that only grows stays as it is";
  }

 private:
  void step() {
    planner_.clear();
    EXPECT_EQ(planner_.n_tokens(), 0);
    std::vector<int32_t> tokens;
    std::vector<std::pair<SequenceId, int32_t>> parts;
    for (const SequenceId id : live_) {
      const int64_t room = max_tokens_ - static_cast<int64_t>(tokens.size());
      const int64_t most = std::min({cache_.max_next(id), 150 - cache_.length(id), room});
      if (most < 1 || random_() % 3 == 0) continue;
      const auto n = static_cast<int32_t>(1 + random_() % most);
      ASSERT_TRUE(cache_.reserve(id, n));
      std::vector<int32_t> own;
      for (int32_t k = 0; k < n; ++k) own.push_back(static_cast<int32_t>(random_() % 1000));
      ASSERT_EQ(planner_.add(id, own), static_cast<int32_t>(tokens.size()));
      tokens.insert(tokens.end(), own.begin(), own.end());
      parts.emplace_back(id, n);
      ASSERT_EQ(planner_.n_tokens(), static_cast<int32_t>(tokens.size()));
    }
    if (parts.empty()) return;
    const StepPlan& plan = planner_.build();
    ASSERT_TRUE(std::equal(tokens.begin(), tokens.end(), plan.tokens.begin(), plan.tokens.end()));
    ASSERT_LE(plan.angle_positions.size(), static_cast<size_t>(planner_.sizes().max_angle_rows));
    ASSERT_EQ(plan.layers.size(), static_cast<size_t>(n_layers_));
    const std::vector<int64_t> longest = planner_.sizes().max_entries;
    int64_t expected_uses = 0;
    for (int32_t layer = 0; layer < n_layers_; ++layer) {
      const LayerRule& rule = cache_.policies().layer(layer);
      const LayerPlan& its = plan.layers[layer];
      ASSERT_EQ(its.sequences.size(), parts.size());
      for (int32_t other = 0; other < layer;
           ++other) {  // rows are shared in groups, and there only
        const LayerPlan& before = plan.layers[other];
        ASSERT_EQ(before.angle_group == its.angle_group,
                  before.sequences[0].angle_rows == its.sequences[0].angle_rows);
      }
      ASSERT_EQ(its.key_norms != nullptr, rule.needs.key_norms);
      int32_t first = 0;
      for (size_t p = 0; p < parts.size(); ++p) {
        SCOPED_TRACE(fmt::format("layer {} part {}", layer, p));
        const auto& [id, n] = parts[p];
        check(its, its.sequences[p], plan, layer, id, n, first);
        ASSERT_LE(its.sequences[p].entries.size(), static_cast<size_t>(longest[layer]));
        if (rule.needs.attention) {
          ASSERT_LE(its.sequences[p].entries.size(),
                    static_cast<size_t>(planner_.sizes().max_measured_entries()));
          ++expected_uses;
        }
        first += n;
      }
    }
    EXPECT_EQ(planner_.measures(), measured(plan) || expected_uses > 0);
    measure(plan);
    for (const auto& [id, n] : parts) {
      Before& before = before_[id];
      before.versions.clear();
      before.tables.clear();
      for (int32_t layer = 0; layer < n_layers_; ++layer) {
        const auto table = cache_.table(id, layer);
        before.tables.emplace_back(table.begin(), table.end());
        before.versions.push_back(cache_.changes(id, layer).version());
      }
    }
    for (const auto& [id, n] : parts) cache_.commit(id);
    cache_.tick();
  }

  static bool measured(const StepPlan& plan) {
    return std::any_of(plan.layers.begin(), plan.layers.end(),
                       [](const LayerPlan& layer) { return layer.key_norms != nullptr; });
  }

  void check(const LayerPlan& its, const SequenceView& view, const StepPlan& plan, int32_t layer,
             SequenceId id, int32_t n, int32_t first) {
    const auto length = static_cast<int32_t>(cache_.length(id));
    ASSERT_EQ(view.sequence, id);
    ASSERT_EQ(view.first_token, first);
    ASSERT_EQ(view.n_tokens, n);
    ASSERT_EQ(view.first_position, length);
    ASSERT_EQ(view.visibility.sinks, cache_.policies().layer(layer).visibility.sinks);
    ASSERT_EQ(view.visibility.window, cache_.policies().layer(layer).visibility.window);
    ASSERT_EQ(view.uses != nullptr, cache_.policies().layer(layer).needs.attention);
    const auto table = cache_.table(id, layer);
    ASSERT_EQ(view.entries.data(), table.data());
    ASSERT_EQ(view.entries.size(), table.size());
    std::vector<KvDestination> to(n);
    cache_.destinations(id, layer, to);
    for (int32_t k = 0; k < n; ++k) {
      ASSERT_EQ(its.destinations[first + k].page, to[k].page);
      ASSERT_EQ(its.destinations[first + k].slot, to[k].slot);
      ASSERT_EQ(plan.angle_positions[first + k], length + k);
    }
    const auto rotations = cache_.rotations(id, layer);
    ASSERT_EQ(view.n_rotations, static_cast<int32_t>(rotations.size()));
    for (int32_t r = 0; r < view.n_rotations; ++r) {
      for (int32_t k = 0; k < n; ++k) {
        const int32_t t = length + k - rotations[r].query_shift;
        const int32_t row = view.angle_rows[r * n + k];
        ASSERT_EQ(plan.angle_positions[row], std::min(t, rotations[r].query_cap));
      }
    }
    // A device keeps the entries that have not changed since the sequence's plan before.
    const Before& before = before_[id];
    if (before.versions.empty()) return;
    const int64_t unchanged = std::min(view.changes->first_changed_since(before.versions[layer]),
                                       static_cast<int64_t>(table.size()));
    ASSERT_LE(unchanged, static_cast<int64_t>(before.tables[layer].size()));
    if (cache_.policies().layer(layer).name == "full" && !before.tables[layer].empty()) {
      ++grown_;
      kept_ += unchanged > 0 ? 1 : 0;
    }
    for (int64_t e = 0; e < unchanged; ++e) {
      const BlockEntry& old = before.tables[layer][e];
      ASSERT_EQ(table[e].page, old.page);
      ASSERT_EQ(table[e].first_position, old.first_position);
      ASSERT_EQ(table[e].slot_begin, old.slot_begin);
      ASSERT_EQ(table[e].slot_end, old.slot_end);
      ASSERT_EQ(table[e].rotation, old.rotation);
    }
  }

  /// Plays the backend; each sequence's blocks then have had what their own queries gave.
  void measure(const StepPlan& plan) {
    std::vector<std::map<std::pair<SequenceId, int64_t>, KvBlock>> expected(n_layers_);
    for (int32_t layer = 0; layer < n_layers_; ++layer) {
      for (const KvBlock& block : cache_.blocks(layer)) {
        expected[layer][{block.sequence, block.first_position}] = block;
      }
      for (const SequenceView& view : plan.layers[layer].sequences) {
        for (size_t e = 0; e < view.entries.size() && view.uses != nullptr; ++e) {
          const int64_t mass = 1 + static_cast<int64_t>(random_() % 100'000'000);
          const int32_t used =
              view.first_position + static_cast<int32_t>(random_() % view.n_tokens);
          view.uses[e] = {mass, used, 0};
          KvBlock& block = expected[layer][{view.sequence, view.entries[e].first_position}];
          block.mass += static_cast<double>(mass) / kMassUnit;
          block.last_used = used;
        }
      }
      if (plan.layers[layer].key_norms == nullptr) continue;
      for (const SequenceView& view : plan.layers[layer].sequences) {
        for (int32_t k = 0; k < view.n_tokens; ++k) {
          const int64_t norm = 1 + static_cast<int64_t>(random_() % 1'000'000);
          plan.layers[layer].key_norms[view.first_token + k] = norm;
          for (const BlockEntry& e : view.entries) {
            const int32_t at = view.first_position + k - e.first_position;
            if (at < e.slot_begin || at >= e.slot_end) continue;
            KvBlock& block = expected[layer][{view.sequence, e.first_position}];
            block.key_norm += static_cast<double>(norm) / kNormUnit / block.n_tokens;
          }
        }
      }
    }
    planner_.report(cache_);
    for (int32_t layer = 0; layer < n_layers_; ++layer) {
      for (const KvBlock& block : cache_.blocks(layer)) {
        const KvBlock& e = expected[layer][{block.sequence, block.first_position}];
        ASSERT_NEAR(block.mass, e.mass, 1e-9) << layer;
        ASSERT_EQ(block.last_used, e.last_used) << layer;
        ASSERT_NEAR(block.key_norm, e.key_norm, 1e-9) << layer;
      }
    }
  }

  int32_t n_layers_, max_tokens_;
  std::mt19937 random_{21};
  CacheManager cache_;
  StepPlanner planner_;
  std::vector<SequenceId> live_;
  std::vector<Before> before_;
  int64_t grown_ = 0, kept_ = 0;  // tables of full, and those of which a device keeps something
};

TEST(StepPlans, TellABackendWhatTheTablesSay) {
  for (const auto& [spec, n_layers, max_tokens] :
       {std::tuple{"full", 1, 24},
        {"0=full,1=sink:3+9,2=sink:3+20,3=h2o:32@every:8@compact,4=knorm:24@every:8,"
         "5=sink:3+9@original,6=sink:3+9,7=lru:24@every:8,*=sink:4+8@original",
         9, 24},
        {"0=knorm:24@every:8,1=full", 2, 7},
        {"0=tova:24@every:3@compact,1=random:24@every:5@compact,2=window:7", 3, 24},
        {"knorm:9@every:1@compact", 1, 1}}) {
    for (const int32_t block : {1, 4}) {
      SCOPED_TRACE(fmt::format("{} blocks of {}", spec, block));
      Plans(spec, n_layers, block, max_tokens).run(400);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace paddock
