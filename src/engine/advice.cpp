#include "engine/advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/search.h"

namespace paddock {
namespace {

/// Whether engines can be made and hold what is wanted; nothing is made.
class Trial {
 public:
  Trial(const LlamaConfig& config, const EngineSetup& setup, const Wanted& wanted)
      : config_(config), setup_(setup), base_(setup.asked), wanted_(wanted) {
    if (base_.kv.budget_share > 0) {
      base_.kv.budget_share = 0;
      base_.kv.budget_bytes = setup.share_bytes;
    }
    base_.kv.custom_policy = nullptr;
  }

  const EngineOptions& base() const { return base_; }
  const PolicyMap& policies() const { return setup_.policies; }
  uint64_t max_bytes() const {
    return wanted_.max_bytes > 0 ? wanted_.max_bytes : std::numeric_limits<uint64_t>::max();
  }
  EngineSetup lay_out(const EngineOptions& options, const PolicyMap& policies) const {
    return paddock::lay_out(config_, options, policies);
  }

  bool works(const EngineOptions& options, const PolicyMap& policies, int64_t positions) const {
    const EngineSetup s = lay_out(options, policies);
    return s.pool.n_pages <= kMaxPages && s.reserved_bytes() <= max_bytes() &&
           s.pool.n_pages >= min_pages(s) && s.longest >= positions &&
           least_pages_needed(s, positions) <= s.pool.n_pages;
  }

  /// Proposes a pool: the smallest that holds what is wanted or, if there is no memory for that,
  /// the largest that there is memory for.
  std::optional<Proposal> budget(EngineOptions options, int64_t positions) const {
    const EngineSetup s = lay_out(options, policies());
    const auto page_bytes = static_cast<uint64_t>(s.pool.geometry.page_bytes());
    const uint64_t now = static_cast<uint64_t>(std::min(s.reserved_pages, kMaxPages)) * page_bytes;
    const uint64_t before =
        wanted_.running ? static_cast<uint64_t>(setup_.pool.n_pages) * page_bytes : now;
    const bool too_much = now > max_bytes();
    Proposal proposal;
    uint64_t bytes =
        static_cast<uint64_t>(std::max(min_pages(s), pages_needed(s, positions))) * page_bytes;
    if (too_much) {
      const uint64_t unit = max_bytes() < (8ULL << 20) ? 1ULL << 10 : 1ULL << 20;
      bytes = std::max(bytes, max_bytes() / unit * unit);
    }
    proposal.lowers = bytes < before;
    proposal.budget_bytes = bytes;
    options = with_proposal(options, proposal);
    if (!works(options, policies(), positions)) return std::nullopt;
    return proposal;
  }

  /// The rule of this name (and options) with the largest budget that fits; nothing if none helps.
  std::optional<std::string> largest(const EngineOptions& options, const std::string& name,
                                     int64_t positions) const {
    // Budgets are whole blocks, and of more than a few positions: smaller ones are for tests.
    constexpr int64_t kLeastStep = 8;
    const int64_t block = base_.kv.block_size;
    const int64_t step = (std::max(block, kLeastStep) + block - 1) / block * block;
    const auto spec = [&](int64_t n) {
      if (name == "sink") return fmt::format("sink:{}+{}", kUsualSinks, n - kUsualSinks);
      const size_t at = name.find('@');
      return fmt::format("{}:{}{}", name.substr(0, at), n,
                         at == std::string::npos ? "" : name.substr(at));
    };
    const int64_t pool = pool_pages(options);
    const auto fits = [&](int64_t n) {
      const PolicyMap policies = parse(spec(n));
      const EngineSetup s = lay_out(options, policies);
      return policies.has_unbounded_layer() ? false : pages_needed(s, kMaxPositions) <= pool;
    };
    const int64_t steps = paddock::largest(0, config_.context_length / step,
                                           [&](int64_t n) { return fits(n * step); });
    if (steps == 0) return std::nullopt;
    std::string text = spec(steps * step);
    if (text == base_.kv.policy || !usable(options, text, positions)) return std::nullopt;
    return text;
  }

  /// Whether a SPEC can be parsed, suits the block size, and holds what is wanted.
  bool usable(EngineOptions options, const std::string& spec, int64_t positions) const {
    try {
      const PolicyMap policies = parse(spec);
      policies.check_block_size(options.kv.block_size);
      options.kv.policy = spec;
      if (!works(options, policies, positions)) return false;
      // An engine that stands keeps its batch size; another is for the next one.
      if (!wanted_.running || options.batch_size != base_.batch_size) return true;
      EngineSetup now = setup_;
      now.policies = policies;
      return min_pages(now) <= setup_.pool.n_pages &&
             least_pages_needed(now, std::min(positions, now.options.context)) <=
                 setup_.pool.n_pages;
    } catch (const Error&) {
      return false;
    }
  }

  /// Positions that a layer keeps under a rule with a budget.
  int64_t kept(const std::string& spec) const {
    const LayerRule rule = parse(spec).layer(0);
    return rule.trims() ? rule.schedule.budget : rule.splits_at();
  }
  /// Positions of one sequence that the whole pool has room for.
  int64_t pool_positions() const {
    return pool_pages(base_) / config_.n_layers * base_.kv.block_size;
  }

 private:
  PolicyMap parse(const std::string& spec) const {
    return PolicyMap::parse(spec, config_.n_layers);
  }
  /// Of the pool as it is or would be made.
  int64_t pool_pages(const EngineOptions& options) const {
    if (wanted_.running) return setup_.pool.n_pages;
    const EngineSetup s = lay_out(options, policies());
    const auto page_bytes = static_cast<uint64_t>(s.pool.geometry.page_bytes());
    const uint64_t bytes =
        options.kv.budget_bytes > 0 ? std::min(options.kv.budget_bytes, max_bytes()) : max_bytes();
    return pages_in(bytes, page_bytes);
  }

  const LlamaConfig& config_;
  const EngineSetup& setup_;
  EngineOptions base_;
  const Wanted& wanted_;
};

/// Of decisions that come often.
std::string short_interval(const Trial& trial) {
  return fmt::format("@every:{}", std::max(8, trial.base().kv.block_size));
}

/// A SPEC, if it is another one than was asked for and can be used with all else as it is.
std::optional<Proposal> try_spec(const Trial& trial, const std::string& spec, int64_t positions) {
  const EngineOptions& base = trial.base();
  if (spec == base.kv.policy || !trial.usable(base, spec, positions)) return std::nullopt;
  Proposal proposal;
  proposal.policy = spec;
  return proposal;
}

/// Rules to try, by name: the one that was asked for first, if it bounds what it keeps.
std::vector<std::string> names_to_try(const Trial& trial, bool context_is_short) {
  const std::string& asked = trial.base().kv.policy;
  const std::string every = short_interval(trial);
  // Positions beyond those that a model was trained on need a rule that moves queries.
  if (context_is_short) return {"sink", "h2o@compact"};
  std::vector<std::string> names;
  const std::string own = asked.substr(0, asked.find_first_of(":@"));
  for (const char* name : {"lru", "h2o", "tova", "knorm", "random", "sink", "window"}) {
    if (own == name) names.push_back(own);
  }
  for (const std::string& name :
       {std::string("h2o"), std::string("sink"), "h2o" + every, std::string("window")}) {
    if (name != own) names.push_back(name);
  }
  return names;
}

std::optional<Proposal> policy(const Trial& trial, const EngineOptions& options, int64_t positions,
                               bool context_is_short) {
  for (const std::string& name : names_to_try(trial, context_is_short)) {
    if (const auto spec = trial.largest(options, name, positions)) {
      Proposal proposal;
      proposal.policy = *spec;
      return proposal;
    }
  }
  return std::nullopt;
}

/// A rule that keeps what there is room for, and gives up only what it must.
std::optional<Proposal> elastic_policy(const Trial& trial, int64_t positions) {
  const auto found = try_spec(trial, "lru", positions);
  return found ? found : try_spec(trial, "lru" + short_interval(trial), positions);
}

/// Whether a rule with a budget is worth proposing: not if no larger pool can be had beside it, nor
/// if it would keep less than half of what this pool holds.
bool helps(const Trial& trial, const std::optional<Proposal>& fixed, bool can_be_raised) {
  if (!fixed) return false;
  if (!trial.policies().has_unbounded_layer()) return true;  // one was asked for
  return can_be_raised && 2 * trial.kept(*fixed->policy) >= trial.pool_positions();
}

/// The same options with ever smaller batches.
std::vector<EngineOptions> smaller_batches(EngineOptions options) {
  std::vector<EngineOptions> out;
  while (options.batch_size > 1) {
    options.batch_size /= 2;
    out.push_back(options);
  }
  return out;
}

std::vector<Proposal> within_context(const Trial& trial, int64_t positions) {
  std::vector<Proposal> out;
  const EngineOptions& base = trial.base();
  const auto raised = trial.budget(base, positions);
  if (raised) out.push_back(*raised);
  auto other = policy(trial, base, positions, false);
  if (!helps(trial, other, raised.has_value())) {
    if (const auto elastic = elastic_policy(trial, positions)) other = elastic;
  }
  if (other) out.push_back(*other);
  const auto smaller = smaller_batches(base);
  const auto works = [&](const EngineOptions& options) {
    return trial.works(options, trial.policies(), positions);
  };
  if (const auto at = std::find_if(smaller.begin(), smaller.end(), works); at != smaller.end()) {
    Proposal proposal;
    proposal.batch_size = at->batch_size;
    proposal.lowers = true;
    out.push_back(proposal);
  } else if (!other) {  // neither alone: both
    for (const EngineOptions& options : smaller) {
      auto found = policy(trial, options, positions, false);
      if (!found) continue;
      found->batch_size = options.batch_size;
      out.push_back(*found);
      break;
    }
  }
  return out;
}

/// The context is too short. One that the user did not give, or that lies beyond what the model was
/// trained on, is not proposed unless nothing else helps.
std::vector<Proposal> beyond_context(const Trial& trial, int64_t positions, int64_t trained) {
  std::vector<Proposal> out;
  EngineOptions longer = trial.base();
  const bool given = longer.context > 0;
  const auto extend = [&](int64_t context) {
    longer.context = context;
    Proposal proposal;
    if (!trial.works(longer, trial.policies(), positions)) {
      const auto found = trial.budget(longer, positions);
      if (!found) return false;
      proposal = *found;
    }
    proposal.context = context;
    out.push_back(proposal);
    return true;
  };
  if (given && !extend(0) && positions <= trained) extend(positions);
  if (!out.empty() && positions <= trained) return out;
  longer.context = 0;
  if (auto found = policy(trial, longer, positions, true)) {
    if (given) found->context = 0;
    out.push_back(*found);
  }
  if (out.empty()) extend(positions);
  return out;
}

/// The longest context that works, where what it takes is too much.
std::optional<Proposal> shorter_context(const Trial& trial, const EngineSetup& setup) {
  EngineOptions shorter = trial.base();
  const int64_t context = largest(0, setup.options.context - 1, [&](int64_t n) {
    shorter.context = n;
    return trial.works(shorter, trial.policies(), 0);
  });
  if (context == 0) return std::nullopt;
  Proposal proposal;
  proposal.context = context;
  proposal.lowers = true;
  return proposal;
}

}  // namespace

std::vector<Proposal> propose(const LlamaConfig& config, const EngineSetup& setup,
                              const Wanted& wanted) {
  const Trial trial(config, setup, wanted);
  std::vector<Proposal> out;
  for (const int64_t positions : {wanted.positions, wanted.least}) {
    out = setup.longest < positions ? beyond_context(trial, positions, config.context_length)
                                    : within_context(trial, positions);
    if (!out.empty()) break;
  }
  if (wanted.positions == 0 && trial.base().kv.budget_bytes == 0) {
    if (const auto found = shorter_context(trial, setup)) out.insert(out.begin(), *found);
  }
  return out;
}

std::vector<Proposal> as_others(std::vector<Proposal> proposals,
                                const std::vector<std::string>& specs, size_t i) {
  for (Proposal& proposal : proposals) {
    if (!proposal.policy) continue;
    proposal.other_policies = specs;
    (*proposal.other_policies)[i] = *proposal.policy;
    proposal.policy.reset();
  }
  return proposals;
}

std::vector<Proposal> propose_for(const LlamaConfig& config, const EngineSetup& setup,
                                  RulesId rules, const Wanted& wanted) {
  std::vector<Proposal> out = propose(config, setup.of(rules), wanted);
  if (setup.others.empty()) return out;
  if (rules > 0) {
    const auto i = static_cast<size_t>(rules) - 1;
    out = as_others(std::move(out), setup.asked.kv.other_policies, i);
  }
  if (wanted.running) return out;  // the pool stands
  std::erase_if(out, [&](const Proposal& proposal) {
    for (RulesId other = 0; other < setup.n_rules(); ++other) {
      if (other == rules) continue;
      const EngineSetup& s = setup.of(other);
      EngineOptions options = with_proposal(s.asked, proposal);
      options.kv.policy = s.asked.kv.policy;
      if (options.kv.budget_share > 0) {
        options.kv.budget_share = 0;
        options.kv.budget_bytes = setup.share_bytes;
      }
      const EngineSetup laid = lay_out(config, options, s.policies);
      if (laid.pool.n_pages > kMaxPages || laid.pool.n_pages < min_pages(laid)) return true;
    }
    return false;
  });
  return out;
}

std::vector<Proposal> propose_policy(const LlamaConfig& config, const EngineSetup& setup,
                                     const Wanted& wanted) {
  const Trial trial(config, setup, wanted);
  const EngineOptions& base = trial.base();
  const std::string repaired = repaired_spec(base.kv.policy, config.n_layers, base.kv.block_size);
  auto found = try_spec(trial, repaired, wanted.positions);
  if (!found) found = policy(trial, base, wanted.positions, false);
  if (!found) found = try_spec(trial, "full", wanted.positions);
  return found ? std::vector<Proposal>{*found} : std::vector<Proposal>{};
}

}  // namespace paddock
