// The conformance suite: settings, a run of the cache, made-up scenes, the same questions again. Of
// an elastic policy, under several budgets.
#include <time.h>

#include <algorithm>
#include <memory>

#include "core/fail.h"
#include "diagnose/cost_growth.h"
#include "diagnose/declared_needs.h"
#include "diagnose/elastic_budgets.h"
#include "diagnose/findings.h"
#include "diagnose/policy_settings.h"
#include "diagnose/scenes.h"

namespace paddock {
namespace {

using PolicyPointer = std::shared_ptr<const EvictionPolicy>;

constexpr int32_t kBlockSizes[] = {16, 5, 1};  // the engine's default first
constexpr int64_t kCostBlockSize = 16;

class Suite {
 public:
  Suite(const PolicyFactory& factory, const ConformanceOptions& options,
        std::span<const int32_t> block_sizes)
      : factory_(factory), options_(options), block_sizes_(block_sizes), dice_(options.seed) {}

  ConformanceReport run();

 private:
  PolicyPointer make() const;
  bool check_settings();
  void check_decisions();
  void check_elastic();
  void collect_scenes();
  void check_repeats();
  void check_state();
  void check_sharing();
  void check_cost();
  double seconds_of(const Scene& scene);
  int32_t trimming_layer() const { return static_cast<int32_t>(trimming_ - rules_.data()); }

  const PolicyFactory& factory_;
  const ConformanceOptions& options_;
  const std::span<const int32_t> block_sizes_;
  Dice dice_;
  Findings findings_;
  ConformanceReport report_;
  PolicyPointer policy_, twin_;
  std::optional<Settings> settings_;
  std::vector<LayerRule> rules_;         // [n_layers]
  const LayerRule* trimming_ = nullptr;  // the first that trims
  std::vector<Scene> scenes_;
  std::vector<Answer> run_answers_;  // of the first scenes_, those of runs
  std::vector<Answer> answers_;      // of all, by an object that was asked nothing else
};

PolicyPointer Suite::make() const {
  PolicyPointer policy;
  try {
    policy = factory_();
  } catch (...) {
    fail(ErrorCode::kInvalidArgument, "the factory given to check_policy() threw: {}",
         current_exception_text());
  }
  if (policy == nullptr) {
    fail(ErrorCode::kInvalidArgument, "the factory given to check_policy() made no policy");
  }
  return policy;
}

// ---- settings

/// False if nothing else can be checked.
bool Suite::check_settings() {
  settings_ = ask_settings(*policy_, options_.n_layers, findings_);
  const std::optional<Settings> again = ask_settings(*policy_, options_.n_layers, findings_);
  const std::optional<Settings> other = ask_settings(*twin_, options_.n_layers, findings_);
  if (!settings_ || !again || !other) return false;
  report_.policy = settings_->name;
  compare_settings(*settings_, *again, "from one call to the next", findings_);
  if (!findings_.has(FindingKind::kName) && !findings_.has(FindingKind::kSettings)) {
    compare_settings(*settings_, *other, "from one object of the factory to the next", findings_);
  }
  if (findings_.has(FindingKind::kSettings)) return false;
  if (settings_->positions != Positions::kOriginal && settings_->positions != Positions::kCompact) {
    findings_.error(FindingKind::kSettings, "positions() is {}, which is neither of the two",
                    static_cast<int>(settings_->positions));
    return false;
  }
  try {
    for (int32_t layer = 0; layer < options_.n_layers; ++layer) {
      rules_.emplace_back(policy_, layer, options_.n_layers);
    }
  } catch (const PolicyThrew& e) {
    findings_.error(FindingKind::kThrows, "asked again: {}", e.what());
    return false;
  } catch (const Error& e) {
    findings_.error(FindingKind::kSettings, "an engine refuses it: {}", e.what());
    return false;
  }
  for (const LayerRule& rule : rules_) {
    if (trimming_ == nullptr && rule.trims()) trimming_ = &rule;
  }
  if (!findings_.has(FindingKind::kName)) check_name(*policy_, settings_->name, findings_);
  return true;
}

// ---- questions

void Suite::collect_scenes() {
  std::vector<Scene> made_up;
  for (const int32_t block_size : block_sizes_) {
    try {
      for (size_t i = 0; i < rules_.size(); ++i) {
        rules_[i].check_block_size(block_size, static_cast<int32_t>(i));
      }
    } catch (const Error& e) {
      report_.notes.push_back(fmt::format("not run with blocks of {}, as an engine would not: {}",
                                          block_size, e.what()));
      continue;
    }
    const PolicyPointer fresh = make();
    CacheRun run;
    try {
      run = run_cache(fresh, options_, block_size, dice_, findings_);
    } catch (const PolicyThrew& e) {
      findings_.error(FindingKind::kThrows, "asked again: {}", e.what());
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kInternal) throw;
      findings_.error(FindingKind::kSettings, "an engine refuses it, asked again: {}", e.what());
    }
    if (!run.skipped.empty()) report_.notes.push_back(run.skipped);
    std::move(run.scenes.begin(), run.scenes.end(), std::back_inserter(scenes_));
    std::move(run.answers.begin(), run.answers.end(), std::back_inserter(run_answers_));
    if (trimming_ == nullptr) continue;
    std::vector<Scene> more = make_scenes(rules_, options_, block_size, dice_);
    std::move(more.begin(), more.end(), std::back_inserter(made_up));
  }
  std::move(made_up.begin(), made_up.end(), std::back_inserter(scenes_));
}

/// Each question twice in a row, and then by another object in the same order.
void Suite::check_repeats() {
  policy_ = make();
  twin_ = make();
  for (size_t i = 0; i < scenes_.size(); ++i) {
    const Scene& scene = scenes_[i];
    answers_.push_back(findings_.ask(*policy_, scene));
    if (i >= run_answers_.size() && answers_[i]) findings_.judge(scene, *answers_[i]);
    if (!same_answer(answers_[i], findings_.ask(*policy_, scene))) {
      findings_.error(FindingKind::kNondeterministic,
                      "asked twice in a row trim() gave two answers {}; it must depend on the view "
                      "alone, not on chance, a clock or earlier calls",
                      scene.where());
    }
  }
  if (findings_.has(FindingKind::kNondeterministic) || twin_ == policy_) return;
  for (size_t i = 0; i < scenes_.size(); ++i) {
    const Answer first = findings_.ask(*twin_, scenes_[i]);
    const Answer second = findings_.ask(*twin_, scenes_[i]);
    if (same_answer(answers_[i], first) && same_answer(answers_[i], second)) continue;
    findings_.error(FindingKind::kNondeterministic,
                    "two objects asked the same questions in the same order gave two answers {}; "
                    "an answer must not depend on addresses, seeds or what objects share",
                    scenes_[i].where());
  }
}

/// The same questions in other orders, other sequences and layers in between.
void Suite::check_state() {
  const auto hold = [&](size_t i, const Answer& answer, const char* when) {
    if (same_answer(answers_[i], answer)) return;
    findings_.error(FindingKind::kState,
                    "trim() gave another answer {} {}; it must keep nothing from one decision to "
                    "the next, one object serves all sequences and layers",
                    scenes_[i].where(), when);
  };
  for (size_t i = scenes_.size(); i-- > 0;) {
    hold(i, findings_.ask(*policy_, scenes_[i]), "when asked about them in reverse");
  }
  for (size_t i = 0; i < run_answers_.size(); ++i) {
    hold(i, run_answers_[i], "when sequences were interleaved");
  }
  const PolicyPointer fresh = make();
  std::vector<size_t> order(scenes_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), dice_);
  for (const size_t i : order) {
    hold(i, findings_.ask(*fresh, scenes_[i]), "when asked about other layers in between");
  }
}

/// What layers that share by need answer for shares, and how much they want: twice in a row, and
/// then another object in another order.
void Suite::check_sharing() {
  std::vector<int32_t> sizes;  // that an engine would run it with
  for (const Scene& scene : scenes_) {
    if (std::find(sizes.begin(), sizes.end(), scene.head.block_size) == sizes.end()) {
      sizes.push_back(scene.head.block_size);
    }
  }
  check_shares(policy_, *twin_, options_.n_layers, sizes, findings_);
  std::vector<std::optional<double>> wants;
  for (const Scene& scene : scenes_) {
    wants.push_back(findings_.want(*policy_, scene));
    if (wants.back() == findings_.want(*policy_, scene)) continue;
    findings_.error(FindingKind::kNondeterministic,
                    "asked twice in a row need() gave two answers {}; it must depend on the view "
                    "alone, not on chance, a clock or earlier calls",
                    scene.where());
  }
  const PolicyPointer fresh = make();
  for (size_t i = scenes_.size(); i-- > 0 && !findings_.has(FindingKind::kNondeterministic);) {
    if (wants[i] == findings_.want(*fresh, scenes_[i])) continue;
    findings_.error(FindingKind::kState,
                    "need() gave another answer {} as another object of the factory, or when asked "
                    "in reverse; it must keep nothing from one question to the next",
                    scenes_[i].where());
  }
}

// ---- cost

/// Of one decision; of this thread, so that other programs do not count.
double Suite::seconds_of(const Scene& scene) {
  const auto now = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  };
  const double start = now();
  findings_.ask(*policy_, scene);
  return now() - start;
}

void Suite::check_cost() {
  const int32_t layer = trimming_layer();
  const auto growth = find_cost_growth([&](int32_t n) {
    Scene scene = make_scene(*trimming_, options_, layer, kCostBlockSize, n, dice_);
    set_measures(scene, trimming_->needs, Measures::kRandom, dice_);
    scene.n_tokens = n * kCostBlockSize / 4;
    return seconds_of(scene);
  });
  if (!growth) return;
  findings_.warning(FindingKind::kCost,
                    "a decision on {} blocks takes {:.3g} ms, one on {} takes {:.3g} ms: {:.0f} "
                    "times as long, where O(blocks log blocks) explains {:.0f} at the most",
                    growth->few, growth->few_seconds * 1e3, growth->many,
                    growth->many_seconds * 1e3, growth->many_seconds / growth->few_seconds,
                    growth->allowed);
}

// ---- all together

void Suite::check_decisions() {
  collect_scenes();
  check_repeats();
  if (trimming_ != nullptr && settings_->shares) check_sharing();
  if (!findings_.has(FindingKind::kNondeterministic)) check_state();
  const bool repeatable = !findings_.has(FindingKind::kNondeterministic) &&
                          !findings_.has(FindingKind::kState) &&
                          !findings_.has(FindingKind::kThrows);
  if (trimming_ == nullptr) {
    report_.notes.emplace_back("no layer is trimmed, so trim() is never asked");
  } else if (repeatable) {
    check_needs({*policy_, *trimming_, trimming_layer(), settings_->shares}, options_, dice_,
                findings_);
    if (options_.measure_cost) check_cost();
  }
}

/// Driven under each budget like a rule that has it.
void Suite::check_elastic() {
  ConformanceOptions options = options_;
  for (const BudgetTrial& trial :
       check_budgets(policy_, *twin_, options_.n_layers, block_sizes_, findings_)) {
    // Where the factory has one object only, that must show.
    PolicyPointer inner, limited;
    const PolicyFactory factory = [&] {
      const PolicyPointer made = make();
      if (made != inner) limited = with_budget(inner = made, trial.budget);
      return limited;
    };
    const std::string where = fmt::format("with a budget of {}", trial.budget);
    const ConformanceReport report = Suite(factory, options, trial.block_sizes).run();
    findings_.take(report, where);
    for (const std::string& note : report.notes) report_.notes.push_back(where + ": " + note);
    options.measure_cost = false;  // once is enough
  }
}

ConformanceReport Suite::run() {
  policy_ = make();
  twin_ = make();
  if (check_settings()) {
    if (settings_->is_elastic) {
      check_elastic();
    } else {
      check_decisions();
    }
    const std::optional<Settings> after = ask_settings(*policy_, options_.n_layers, findings_);
    if (after && !findings_.has(FindingKind::kName)) {
      compare_settings(*settings_, *after, "before and after decisions", findings_);
    }
  }
  // A policy that names too few blocks forgets some by that alone; one finding says enough.
  if (findings_.has(FindingKind::kShortfall)) findings_.forget(FindingKind::kForgotten);
  report_.decisions = findings_.decisions;
  report_.findings = findings_.sorted();
  return std::move(report_);
}

}  // namespace

ConformanceReport check_policy(const PolicyFactory& factory, const ConformanceOptions& options) {
  check_range("ConformanceOptions::n_layers", options.n_layers, 4, 64);
  check_range("ConformanceOptions::n_heads", options.n_heads, 1, 1024);
  if (!factory) fail(ErrorCode::kInvalidArgument, "check_policy() was given no factory");
  return Suite(factory, options, kBlockSizes).run();
}

ConformanceReport check_policy(const std::shared_ptr<const EvictionPolicy>& policy,
                               const ConformanceOptions& options) {
  if (policy == nullptr) fail(ErrorCode::kInvalidArgument, "check_policy() was given no policy");
  return check_policy([&] { return policy; }, options);
}

}  // namespace paddock
