#include "diagnose/doctor_causes.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <set>
#include <unordered_set>

namespace paddock {
namespace {

// What counts as a cause. docs/doctor.md says the same.
constexpr double kGreedyShare = 0.5;     // of what is held, when others went without,
constexpr int64_t kGreedyTimes = 3;      // and so many times what the median of the others held
constexpr double kPoorFill = 0.5;        // of the room in pages
constexpr double kWastedPool = 0.2;      // of the pool, that is empty room in pages
constexpr double kGoodFill = 0.8;        // that smaller blocks are proposed for
constexpr double kRegretShare = 0.05;    // of the blocks looked for
constexpr int64_t kBrokenPairs = 2;      // of prompts, at least, and
constexpr double kBrokenShare = 0.5;     // of those compared
constexpr double kUnsharedShare = 0.25;  // of the prompts' blocks, that had been there

using Causes = std::vector<DoctorCause>;

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }
double as_double(int64_t n) { return static_cast<double>(n); }

/// The one that held most when somebody went without pages.
struct Greedy {
  RunOwner who;
  double share = 0;  // of what was held, on average
  int64_t times = 0;
};

Greedy find_greedy(const RunRecord& run) {
  std::map<RunOwner, Greedy> sums;
  for (const RunRecord::Shortage& shortage : run.shortages) {
    if (shortage.held.size() < 2) continue;
    int64_t all = 0;
    for (const auto& [owner, pages] : shortage.held) all += pages;
    const auto most = std::max_element(shortage.held.begin(), shortage.held.end(),
                                       [](auto& a, auto& b) { return a.second < b.second; });
    Greedy& its = sums[most->first];
    its.who = most->first;
    its.share += share(as_double(most->second), as_double(all));
    ++its.times;
  }
  Greedy found;
  for (const auto& [owner, its] : sums) {
    if (its.times > found.times) found = its;
  }
  if (found.times > 0) found.share /= as_double(found.times);
  return found;
}

bool is_greedy(const RunRecord& run, const Greedy& greedy) {
  if (2 * greedy.times < static_cast<int64_t>(run.shortages.size()) || greedy.times == 0) {
    return false;
  }
  std::vector<int64_t> others;
  for (const auto& [owner, pages] : run.most_held) {
    if (owner != greedy.who && owner != RunOwner()) others.push_back(pages);
  }
  if (others.empty()) return false;
  std::nth_element(others.begin(), others.begin() + static_cast<ptrdiff_t>(others.size() / 2),
                   others.end());
  const int64_t median = others[others.size() / 2];
  return greedy.share >= kGreedyShare &&
         run.most_held.at(greedy.who) >= kGreedyTimes * std::max<int64_t>(1, median);
}

/// Room in pages that holds nothing, as a share of the pool, on average.
double wasted_of(const RunRecord& run) {
  const double room = as_double(run.n.entries) * run.header.block_size;
  const double pool = as_double(run.n.steps) * as_double(run.pool_pages) * run.header.block_size;
  return share(room - as_double(run.n.entry_tokens), pool);
}

/// The largest power of two that fills its pages well for what was held on average.
int32_t better_block(const RunRecord& run) {
  const double held = share(as_double(run.n.entry_tokens), as_double(run.n.entries));
  const double blocks = held / run.header.block_size;  // its part of a page
  int32_t size = 1;
  // A text's last block is half full on average.
  while (size * 2 < run.header.block_size &&
         1 - size / std::max(1.0, 2 * blocks * run.header.block_size) > kGoodFill) {
    size *= 2;
  }
  return size;
}

void find_shortage(const RunRecord& run, Causes& causes) {
  const int64_t kv_full = count_finished(run, FinishReason::kKvFull);
  const int64_t falls = run.n.falls - run.n.context_falls;
  const bool is_short = kv_full > 0 || run.n.preemptions > 0 || run.n.refusals > 0 || falls > 0;
  const double fill = fill_of(run), wasted = wasted_of(run);
  if (run.n.steps > 0 && fill < kPoorFill && wasted >= kWastedPool) {
    DoctorCause cause{Ailment::kBlocksTooLarge};
    cause.evidence = {
        {"fill", fill}, {"pool_wasted", wasted}, {"block_size", as_double(run.header.block_size)}};
    cause.setting = "block_size";
    cause.value = std::to_string(better_block(run));
    causes.push_back(std::move(cause));
    return;
  }
  if (!is_short) return;
  const Greedy greedy = find_greedy(run);
  if (is_greedy(run, greedy)) {
    DoctorCause cause{Ailment::kGreedySequence};
    cause.evidence = {{greedy.who.first != 0 ? "session" : "request",
                       as_double(greedy.who.first != 0 ? greedy.who.first : greedy.who.second)},
                      {"share_held", greedy.share},
                      {"pages_held_most", as_double(run.most_held.at(greedy.who))},
                      {"shortages", as_double(static_cast<int64_t>(run.shortages.size()))}};
    const int64_t fair = run.pool_pages / std::max(1, run.header.n_layers) * run.header.block_size /
                         std::max(1, run.header.max_sequences);
    cause.setting = "context";
    cause.value = std::to_string(std::max<int64_t>(1, fair));
    causes.push_back(std::move(cause));
    return;
  }
  DoctorCause cause{Ailment::kPoolTooSmall};
  cause.evidence = {{"kv_full", as_double(kv_full)},
                    {"preemptions", as_double(run.n.preemptions)},
                    {"refusals", as_double(run.n.refusals)},
                    {"budget_falls", as_double(falls)},
                    {"elastic_trims", as_double(run.n.elastic_trims - run.n.context_trims)},
                    {"pages_wanted", as_double(pages_wanted(run))},
                    {"pool_pages", as_double(run.pool_pages)}};
  cause.setting = "budget";
  cause.value =
      std::to_string(std::max(pages_wanted(run), run.pool_pages + 1) * run.header.page_bytes);
  causes.push_back(std::move(cause));
}

/// Blocks of prompts that an earlier one had, though nothing was looked for.
void find_unshared(const RunRecord& run, Causes& causes) {
  int64_t unshared = 0, blocks = 0;
  std::unordered_set<int64_t> asked;
  for (const RunRecord::Miss& miss : run.misses) {
    if (miss.miss.reason == MissReason::kNotShared) asked.insert(miss.request);
  }
  std::unordered_set<uint64_t> known;
  for (const RunRecord::Request& r : run.requests) {
    if (r.begin > 0) continue;
    for (const uint64_t hash : r.blocks) {
      ++blocks;
      unshared += !known.insert(hash).second && asked.count(r.request) > 0 ? 1 : 0;
    }
  }
  const double part = share(as_double(unshared), as_double(blocks));
  if (part < kUnsharedShare) return;
  DoctorCause cause{Ailment::kPrefixNotShared};
  cause.evidence = {{"blocks_computed_again", as_double(unshared)},
                    {"prompt_blocks", as_double(blocks)},
                    {"share_again", part}};
  cause.setting = "policy";
  cause.value = "full";
  causes.push_back(std::move(cause));
}

void find_prefixes(const RunRecord& run, Causes& causes) {
  const BrokenPrefixes broken = find_broken_prefixes(run);
  if (broken.broken >= kBrokenPairs &&
      as_double(broken.broken) >= kBrokenShare * as_double(broken.compared)) {
    DoctorCause cause{Ailment::kPrefixBroken};
    cause.evidence = {{"prompts_compared", as_double(broken.compared)},
                      {"prompts_broken", as_double(broken.broken)},
                      {"differs_at", as_double(broken.differs_at)},
                      {"equal_tokens", as_double(broken.equal_tokens)},
                      {"by_tokens", broken.by_tokens ? 1.0 : 0.0}};
    causes.push_back(std::move(cause));
  }
  find_unshared(run, causes);
  if (as_double(run.n.regrets) > kRegretShare * as_double(run.n.lookups)) {
    DoctorCause cause{Ailment::kPrefixReclaimed};
    cause.evidence = {{"regrets", as_double(run.n.regrets)},
                      {"lookups", as_double(run.n.lookups)},
                      {"hits", as_double(run.n.hits)}};
    cause.setting = "budget";
    cause.value = std::to_string(2 * run.pool_pages * run.header.page_bytes);
    causes.push_back(std::move(cause));
  }
}

void find_losses(const RunRecord& run, Causes& causes) {
  const auto layers = static_cast<int64_t>(run.lost_start.lengths.size());
  if (run.lost_start.went_on && 2 * layers > run.header.n_layers) {
    DoctorCause cause{Ailment::kWindowDropsStart};
    int64_t first = run.lost_start.lengths.begin()->second;
    for (const auto& [layer, length] : run.lost_start.lengths) first = std::min(first, length);
    const int64_t window = run.lost_start.window;
    cause.evidence = {{"layers", as_double(layers)},
                      {"window", as_double(window)},
                      {"at_length", as_double(first)},
                      {"longest", as_double(run.n.longest)}};
    // As much memory as the window: its first quarter at most goes to sinks.
    const int64_t sinks =
        std::clamp<int64_t>(run.lost_start.prompt_tokens, 1, std::max<int64_t>(1, window / 4));
    cause.setting = "policy";
    cause.value = fmt::format("sink:{}+{}", sinks, std::max<int64_t>(1, window - sinks));
    causes.push_back(std::move(cause));
  }
  int64_t trims = -run.n.elastic_trims;
  for (const auto& [reason, n] : run.n.removed) trims += is_by_score(reason) ? n : 0;
  if (trims <= 0 || run.n.violations > 0 || run.n.shortfalls > 0) return;  // those come first
  const bool would_fit = run.n.pages_full_peak <= run.pool_pages;
  DoctorCause cause{would_fit ? Ailment::kBudgetBelowMemory : Ailment::kBudgetSpent};
  cause.evidence = {{"blocks_dropped", as_double(trims)},
                    {"pages_full_peak", as_double(run.n.pages_full_peak)},
                    {"pool_pages", as_double(run.pool_pages)},
                    {"budget_that_keeps", as_double(run.worst_budget)}};
  cause.setting = would_fit ? "policy" : "budget";
  cause.value = would_fit ? "lru" : std::to_string(run.n.pages_full_peak * run.header.page_bytes);
  causes.push_back(std::move(cause));
}

void find_ends(const RunRecord& run, Causes& causes) {
  if (run.n.beyond_layers > 0) {
    DoctorCause cause{Ailment::kBeyondContext};
    const double times = as_double(run.n.longest) / as_double(run.header.model_context);
    cause.evidence = {{"longest", as_double(run.n.longest)},
                      {"model_context", as_double(run.header.model_context)},
                      {"layers", as_double(run.n.beyond_layers)}};
    cause.setting = "rope_factor";
    cause.value =
        fmt::format("{}", static_cast<int64_t>(times) +
                              (times > static_cast<double>(static_cast<int64_t>(times)) ? 1 : 0));
    causes.push_back(std::move(cause));
  }
  const int64_t full = count_finished(run, FinishReason::kContext);
  if (full > 0 || run.n.context_falls > 0) {
    DoctorCause cause{Ailment::kContextFull};
    int64_t wanted = run.n.context_falls > 0 ? run.n.longest : 0;
    for (const RunRecord::Request& r : run.requests) {
      if (r.is_finished && r.reason == FinishReason::kContext) {
        wanted = std::max(wanted, r.prompt_tokens + r.max_tokens);
      }
    }
    cause.evidence = {{"context_full", as_double(full)},
                      {"context_falls", as_double(run.n.context_falls)},
                      {"context_trims", as_double(run.n.context_trims)},
                      {"context", as_double(run.header.context)},
                      {"positions_wanted", as_double(wanted)}};
    cause.setting = "context";
    cause.value = std::to_string(wanted);
    causes.push_back(std::move(cause));
  }
}

void find_faults(const RunRecord& run, Causes& causes) {
  const int64_t errors = count_finished(run, FinishReason::kError);
  if (errors > 0 || run.n.failed_steps > 0) {
    causes.push_back(
        {Ailment::kFailures,
         {{"errors", as_double(errors)}, {"steps_failed", as_double(run.n.failed_steps)}}});
  }
  if (run.n.violations > 0 || run.n.shortfalls > 0) {
    causes.push_back(
        {Ailment::kPolicyViolation,
         {{"violations", as_double(run.n.violations)}, {"shortfalls", as_double(run.n.shortfalls)}},
         run.last_violation});
  }
}

}  // namespace

int64_t pages_for(const RunRecord& run, int64_t tokens) {
  return (tokens + run.header.block_size - 1) / run.header.block_size * run.header.n_layers;
}

int64_t pages_wanted(const RunRecord& run) {
  // By the number of a record: pages that begin to be wanted, or (negative) no longer are.
  std::multimap<int64_t, int64_t> changes;
  std::map<int64_t, int64_t> sessions;  // the most so far
  for (const RunRecord::Request& r : run.requests) {
    const bool was_cut = r.is_finished && r.reason == FinishReason::kKvFull;
    const int64_t pages = pages_for(run, r.prompt_tokens + (was_cut ? r.max_tokens : r.made));
    if (r.session == 0) {
      changes.emplace(r.come, pages);
      if (r.ended >= 0) changes.emplace(r.ended, -pages);
      continue;
    }
    int64_t& before = sessions[r.session];
    if (pages <= before) continue;
    if (before > 0) changes.emplace(r.come, -before);
    changes.emplace(r.come, pages);
    before = pages;
  }
  std::multiset<int64_t, std::greater<>> wanted;
  int64_t most = 0;
  for (const auto& [number, pages] : changes) {
    if (pages < 0) {
      wanted.erase(wanted.find(-pages));
      continue;
    }
    wanted.insert(pages);
    int64_t sum = 0;
    int32_t together = 0;
    for (auto one = wanted.begin(); one != wanted.end() && together < run.header.max_sequences;
         ++one, ++together) {
      sum += *one;
    }
    most = std::max(most, sum);
  }
  return most;
}

double fill_of(const RunRecord& run) {
  return run.n.entries == 0
             ? 1
             : as_double(run.n.entry_tokens) / (as_double(run.n.entries) * run.header.block_size);
}

int64_t count_finished(const RunRecord& run, FinishReason reason) {
  return std::count_if(run.requests.begin(), run.requests.end(),
                       [&](const auto& r) { return r.is_finished && r.reason == reason; });
}

Causes find_causes(const RunRecord& run) {
  Causes causes;
  find_faults(run, causes);
  find_shortage(run, causes);
  find_ends(run, causes);
  find_losses(run, causes);
  find_prefixes(run, causes);
  return causes;
}

}  // namespace paddock
