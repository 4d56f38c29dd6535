// A trace taken together for the doctor: what was held when, by whom, and what became of it.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "paddock/doctor.h"

namespace paddock {

/// Whom a sequence serves: a session, or a request that is none's; 0 and 0: nobody.
using RunOwner = std::pair<int64_t, int64_t>;

class RunRecord {
 public:
  struct Request {
    int64_t request = 0, session = 0, begin = 0, prompt_tokens = 0, max_tokens = 0;
    int64_t made = 0, recomputed = 0;
    int64_t come = 0, ended = -1;  // by the number of the record
    bool is_finished = false;
    FinishReason reason = FinishReason::kError;
    double seconds = 0;
    std::vector<uint64_t> blocks;  // hashes of the full ones of its prompt
    std::vector<int32_t> ids;      // of its prompt, where the trace has them: the first ones
  };
  /// A moment at which somebody went without pages: who held how much when the last step was over.
  struct Shortage {
    RunOwner who;
    std::map<RunOwner, int64_t> held;
  };
  struct Miss {
    int64_t request = 0;
    PrefixMiss miss;
  };
  struct Counts {
    int64_t steps = 0, failed_steps = 0, tokens = 0, pages_peak = 0, resident_peak = 0;
    int64_t preemptions = 0, refusals = 0, falls = 0, lifts = 0, violations = 0, shortfalls = 0;
    int64_t lookups = 0, hits = 0, regrets = 0, longest = 0, pages_full_peak = 0;
    int64_t elastic_trims = 0, beyond_layers = 0;
    int64_t context_falls = 0, context_trims = 0;  // of these, where the context was short
    double step_seconds = 0, slowest = 0, seconds = 0;
    int64_t entries = 0;       // of tables, summed over steps,
    int64_t entry_tokens = 0;  // and the positions in them
    std::map<RemovalReason, int64_t> removed;
  };
  /// What a window took of a text's first block, and in how many layers.
  struct LostStart {
    int64_t prompt_tokens = 0;
    std::map<int32_t, int64_t> lengths;  // by layer: the text's length then
    int32_t window = 0;
    bool went_on = false;
  };

  void take(const TraceRecord& record);
  /// There are no more records.
  void end() {
    for (const auto& [sequence, text] : texts_) keep_map(text);
  }

  TraceHeader header;
  std::string policy;
  int64_t pool_pages = 0;
  std::vector<TraceMemory> memory;
  std::vector<Request> requests;  // in the order of coming
  std::vector<Shortage> shortages;
  std::vector<Miss> misses;
  std::map<RunOwner, int64_t> most_held;  // pages
  std::vector<DoctorSample> samples;
  std::map<RemovalReason, StepHistogram> lives;
  StepHistogram reuse_gaps;
  std::map<std::tuple<RemovalReason, int32_t, int32_t>, int64_t> losses;
  int64_t map_length = 0;
  std::vector<std::vector<BlockFate>> map;
  LostStart lost_start;
  std::string last_violation;
  int64_t worst_budget = 0;  // the largest that would have kept a block, of a rule with a budget
  Counts n;

 private:
  static constexpr size_t kMostIds = 1024;  // of a prompt, that are compared with others
  struct Layer {
    std::vector<int32_t> tokens;  // by block
    std::vector<BlockFate> fates;
  };
  struct Text {
    bool is_pin = false, lost_start = false, fell_for_context = false;
    int32_t rules = 0;
    int64_t length = 0;
    int64_t entries = 0;  // of its tables
    RunOwner owner{};
    int64_t request = 0;
    std::vector<Layer> layers;
    std::vector<uint64_t> blocks;
    std::vector<int32_t> ids;
    std::vector<PrefixMiss> misses;  // whose request is not told yet
  };

  void on(const TraceHeader& h);
  void on(const TraceRules& r);
  void on(const TraceMemory& m) { memory.push_back(m); }
  void on(const TraceRequest& r);
  void on(const TraceRun& r);
  void on(const TraceFinish& f);
  void on(const TraceStepEnd& e);
  void on(const TraceTick& t);
  void on(const TraceOpen& o);
  void on(const TraceClose& c);
  void on(const TraceFork& f);
  void on(const TraceCommit& c);
  void on(const TraceTokens& t);
  void on(const TraceBlock& b);
  void on(const TracePrefix& p);
  void on(const TraceListed& l);
  void on(const TraceMiss& m);
  void on(const TraceCut& c);
  void on(const TracePassed& p);
  void on(const TraceRefusal& r);
  void on(const TraceRemoval& r);
  void on(const TraceBudget& b);
  void on(const TraceViolation& v);
  void on(const TraceLimit& l) { pool_pages = l.pool_pages; }
  // What a diagnosis asks nothing of. A new kind of record does not compile until it stands here.
  void on(const TraceStepBegin&) {}
  void on(const TracePiece&) {}
  void on(const TraceCopy&) {}
  void on(const TraceMerge&) {}
  void on(const TraceDecision&) {}
  void on(const TraceCandidates&) {}
  void on(const TraceProtection&) {}
  void on(const TracePreemption&) {}
  void on(const TraceEnd&) {}

  bool is_for_context(const Text& text, const KvBudgetChange& change) const;
  void put(Text& text, size_t layer, int64_t first, int64_t count, int sign);
  void lose_start(Text& text, const TraceRules::Layer& rule, const KvEvent& e);
  void note_beyond(const Text& text);
  void note_prompt(const Text& text);
  void keep_map(const Text& text);
  void short_of_pages(const RunOwner& who) { shortages.push_back({who, held_}); }
  void sample(const TraceTick& t);
  Request* request_of(int64_t number);

  std::map<int32_t, Text> texts_;  // open ones
  std::map<int32_t, TraceRules> rules_;
  std::unordered_map<int64_t, size_t> by_number_;    // requests
  std::unordered_map<uint64_t, int64_t> last_step_;  // by hash
  std::map<RunOwner, int64_t> held_;                 // when the last step was over
  std::vector<int64_t> resident_, left_;             // by layer; left_: since the last step
  int64_t entries_ = 0, entry_tokens_ = 0, step_tokens_ = 0;
  int64_t stride_ = 1, in_sample_ = 0;  // steps
  int64_t step_ = 0, number_ = 0;
  double seconds_ = 0;
};

/// Counts a number of steps.
void add_to(StepHistogram& histogram, int64_t steps);

}  // namespace paddock
