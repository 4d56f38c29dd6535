// What rules should have decided of a text, by the attention and the keys of the oracle that keeps
// everything: what left scored no more than what stayed, and no more left than had to.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kv/layer_rule.h"
#include "support/dense_oracle.h"

namespace paddock::test {

/// Scores of one text's blocks in one layer. Between the engine's arithmetic and the oracle's lies
/// a thousandth at the most, so that each is a range.
class FollowedDecisions {
 public:
  /// A query's attention, summed over `n_heads` heads, one for each key that it met.
  void note_query(int32_t block_size, int32_t n_heads, int64_t position,
                  const std::vector<Met>& met, const DenseOracle::Row& mass) {
    const auto n = static_cast<size_t>(position / block_size + 1);
    mass_.resize(n, 0);
    newest_.assign(n, 0);
    for (size_t block = surely_used_.size(); block < n; ++block) {
      surely_used_.push_back(static_cast<int64_t>(block) * block_size);
      perhaps_used_.push_back(surely_used_.back());
    }
    std::vector<int64_t> tokens(n, 0);
    for (size_t i = 0; i < met.size(); ++i) {
      const auto block = static_cast<size_t>(met[i].position / block_size);
      mass_[block] += mass[i];
      newest_[block] += mass[i];
      ++tokens[block];
    }
    for (size_t block = 0; block < n; ++block) {
      const double share =
          static_cast<double>(n_heads * tokens[block]) / static_cast<double>(met.size());
      if (tokens[block] == 0) continue;
      if (newest_[block] >= share * (1 + kApart)) surely_used_[block] = position;
      if (newest_[block] >= share * (1 - kApart)) perhaps_used_[block] = position;
    }
  }

  /// At `length`, of the positions that were there before, `is_there` says which are now. `rows`:
  /// the oracle's of this layer. Returns whether anything was compared.
  bool check(const LayerRule& rule, const TrimSchedule& schedule, int32_t block_size,
             const std::vector<char>& was_there, const std::vector<char>& is_there,
             const DenseOracle::Rows& rows, const DenseOracle& oracle) const {
    const auto length = static_cast<int64_t>(is_there.size());
    double worst_gone = -std::numeric_limits<double>::infinity();
    double best_left = std::numeric_limits<double>::infinity();
    int64_t left = 0;
    bool any = false;
    for (int64_t first = 0; first < length; first += block_size) {
      const int64_t end = std::min<int64_t>(first + block_size, length);
      const auto at = static_cast<size_t>(first);
      left += is_there[at] != 0 ? end - first : 0;
      if (was_there[at] == 0) continue;
      const auto [low, high] = score(rule, first, end, block_size, rows, oracle);
      if (is_there[at] == 0) {
        EXPECT_FALSE(is_protected(schedule, first, end, length)) << first << " of " << length;
        worst_gone = std::max(worst_gone, low);
        any = true;
      } else if (!is_protected(schedule, first, end, length)) {
        best_left = std::min(best_left, high);
      }
    }
    if (!any) return false;
    EXPECT_LE(worst_gone, best_left) << rule.name << " at " << length;
    if (!rule.shares_by_need) {
      EXPECT_LE(left, schedule.budget) << rule.name << " at " << length;
      EXPECT_GT(left + block_size, schedule.budget) << rule.name << " at " << length;
    }
    return true;
  }

  /// Whether the oracle can tell what the rule goes by: protection of shares by need it cannot.
  static bool knows(const LayerRule& rule) {
    const std::string name = inner(rule.name);
    const bool scores = name == "lru" || name == "h2o" || name == "tova" || name == "knorm";
    return rule.is_elastic && scores && !(rule.shares_by_need && name == "h2o");
  }

 private:
  static constexpr double kApart = 1e-3;

  static std::string inner(const std::string& rule) {
    const std::string name = rule.substr(0, rule.find('@'));
    return name.substr(name.rfind(':') + 1);
  }

  std::pair<double, double> score(const LayerRule& rule, int64_t first, int64_t end,
                                  int32_t block_size, const DenseOracle::Rows& rows,
                                  const DenseOracle& oracle) const {
    const std::string name = inner(rule.name);
    const auto block = static_cast<size_t>(first / block_size);
    const auto tokens = static_cast<double>(end - first);
    if (name == "lru") {
      if (block >= surely_used_.size()) return {first, first};
      return {surely_used_[block], perhaps_used_[block]};
    }
    double score = 0;
    if (name == "knorm") {
      for (int64_t p = first; p < end; ++p) {
        score -= oracle.sum_of_norms(rows.turned[static_cast<size_t>(p)]);
      }
    } else if (block < mass_.size()) {
      score = name == "tova" ? newest_[block] : mass_[block];
    }
    const double apart = kApart * std::fabs(score);
    return {(score - apart) / tokens, (score + apart) / tokens};
  }

  std::vector<double> mass_, newest_;  // [block] of all queries, and of the newest
  std::vector<int64_t> surely_used_, perhaps_used_;
};

}  // namespace paddock::test
