// What a decision is made in: filled by each of its stages for the next, and nothing between two
// decisions. Its memory is taken when rules are set.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "eviction/share_out.h"
#include "kv/cache_manager.h"
#include "trace/observer.h"

namespace paddock {

struct DecisionScratch {
  /// A block that leaves.
  struct Choice {
    int32_t block;  // index into the view
    double score;
    bool overruled;
  };
  /// A fall, decided and not yet carried out.
  struct Plan {
    struct Layer {
      int32_t share = 0;  // of the budget; all of it where layers do not share
      TrimSchedule schedule;
      std::vector<Choice> choices;
      int32_t runner_up = -1;
      double runner_up_score = 0;
      int64_t pages = 0;                       // that come back
      std::vector<CandidateFacts> candidates;  // for the observer
    };
    SequenceId sequence = -1;  // -1: none is planned
    int64_t length = 0;
    int32_t budget = 0;
    std::vector<Layer> layers;  // [n_layers]
  };

  // ---- of one layer (trim.cpp), in this order
  std::vector<BlockInfo> view;  // fill_view(): what the rule sees
  std::vector<Victim> victims;  // call(): its answer
  std::vector<uint8_t> named;   // take_answer(): [n_blocks] 1 where a victim was taken over
  std::vector<Choice> choices;  // what leaves, in order
  int32_t runner_up = -1;       // index into the view
  double runner_up_score = 0;
  std::vector<std::pair<int64_t, int64_t>> spared;  // remove_victims(): see SufficientBudget
  // ---- of layers that share (share.cpp)
  std::vector<double> needs;        // [layers of the group] what each wants,
  std::vector<ShareBounds> bounds;  // what each can be given,
  std::vector<int32_t> shared_out;  // and what it gets
  std::vector<int32_t> shares_of;   // [n_layers]
  // ---- of falls of budgets (fall.cpp)
  Plan plan;
  std::vector<int32_t> droppings;  // [n_units] plan_falls(): how often a page would be dropped
  // ---- for the observer (telling.cpp)
  std::vector<CandidateFacts> candidates;  // of the decision at hand
  std::vector<Victim> ranking;             // rank_all(): what the rule answers for all blocks
};

}  // namespace paddock
