#include "advise_candidates.h"

#include <fmt/format.h>

#include <algorithm>

#include "advice.h"
#include "common.h"

namespace cli {
namespace {

constexpr int64_t kStep = 16;         // budgets are multiples of it
constexpr int64_t kLeastBudget = 32;  // smaller ones are for tests
constexpr double kSameSpeed = 1.05;   // what two runs of the same may differ by
constexpr double kGain = 1.10;        // quicker than full: worth a change
constexpr double kNearFull = 0.01;    // KL in nats: what a change for speed may cost

/// A rule, whose budget is put in.
struct Form {
  const char* name;
  int64_t sinks = 0;  // positions of the budget that its text names apart
};
constexpr Form kForms[] = {{"h2o"}, {"sink", 4},  {"pyramid:h2o"}, {"tova"},
                           {"lru"}, {"cake:h2o"}, {"snapkv"},      {"knorm"}};

std::string spec(const Form& form, int64_t budget) {
  if (form.sinks == 0) return fmt::format("{}:{}", form.name, budget);
  return fmt::format("{}:{}+{}", form.name, form.sinks, budget - form.sinks);
}

int64_t down(int64_t positions) { return positions / kStep * kStep; }

/// Batches that leave most of the memory to what is kept: a step's tokens need pages, too.
int32_t batch_for(const Room& room, uint64_t kv_bytes_per_token) {
  int32_t batch = kEngineDefaults.batch_size;
  if (!room.memory || kv_bytes_per_token == 0) return batch;
  const uint64_t positions =
      *room.memory / kv_bytes_per_token / static_cast<uint64_t>(room.options.max_sequences);
  while (batch > 16 && static_cast<uint64_t>(batch) * 4 > positions) batch /= 2;
  return batch;
}

/// The largest budget up to `most` with which the rule fits; 0: none.
int64_t largest_budget(const Room& room, paddock::EngineOptions options, const Form& form,
                       int64_t most) {
  int64_t low = 0;
  int64_t high = most / kStep + 1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    options.kv.policy = spec(form, middle * kStep);
    const auto planned =
        middle * kStep < kLeastBudget ? std::nullopt : plan_candidate(room, options);
    // A budget that is too small for its rule is none that is too large for the memory.
    const bool is_small = middle * kStep < kLeastBudget || !planned;
    (is_small || planned->fits ? low : high) = middle;
  }
  return low * kStep;
}

bool is_measured(const Candidate& c) { return c.fits && c.speed && c.quality; }

bool beats(const Candidate& a, const Candidate& b) {
  const int facts_a = a.quality->recalled.value_or(0);
  const int facts_b = b.quality->recalled.value_or(0);
  const bool as_good = a.pool_bytes <= b.pool_bytes && facts_a >= facts_b &&
                       a.quality->kl_mean <= b.quality->kl_mean &&
                       a.speed->decode_rate * kSameSpeed >= b.speed->decode_rate;
  const bool better = a.pool_bytes < b.pool_bytes || facts_a > facts_b ||
                      a.quality->kl_mean < b.quality->kl_mean ||
                      a.speed->decode_rate > kSameSpeed * b.speed->decode_rate;
  return as_good && better;
}

/// Whether `a` is to be taken rather than `b`, full being out of reach: facts, then nearness to
/// full, then speed.
bool is_better(const Candidate& a, const Candidate& b) {
  const int facts_a = a.quality->recalled.value_or(0);
  const int facts_b = b.quality->recalled.value_or(0);
  if (facts_a != facts_b) return facts_a > facts_b;
  if (a.quality->kl_mean != b.quality->kl_mean) return a.quality->kl_mean < b.quality->kl_mean;
  // Two runs of the same differ; what comes first stays, unless another one is clearly quicker.
  return a.speed->decode_rate * a.speed->prefill_rate >
         kGain * b.speed->decode_rate * b.speed->prefill_rate;
}

/// Full fits: what is quicker and as good?
Verdict judge_beside_full(const std::vector<Candidate>& candidates) {
  Verdict verdict;
  const Candidate& full = candidates[0];
  if (!is_measured(full)) {
    verdict.best = 0;
    verdict.why = "full fits; there was no time to measure whether anything is quicker";
    return verdict;
  }
  for (size_t i = 1; i < candidates.size(); ++i) {
    const Candidate& c = candidates[i];
    if (!is_measured(c)) continue;
    const bool is_near = c.quality->dropped ? c.quality->kl_mean <= kNearFull
                                            : c.options.kv.policy == full.options.kv.policy;
    if (!is_near || c.quality->kl_mean > kNearFull ||
        c.quality->recalled.value_or(0) < full.quality->recalled.value_or(0)) {
      continue;
    }
    const bool gains = c.speed->decode_rate > kGain * full.speed->decode_rate &&
                       c.speed->prefill_rate * kGain > full.speed->prefill_rate;
    const bool gains_prefill = c.speed->prefill_rate > kGain * full.speed->prefill_rate &&
                               c.speed->decode_rate * kSameSpeed > full.speed->decode_rate;
    if (!gains && !gains_prefill) continue;
    if (!verdict.best || c.speed->decode_rate > candidates[*verdict.best].speed->decode_rate) {
      verdict.best = i;
    }
  }
  if (verdict.best) {
    verdict.why =
        "full fits, but this was more than 10 % quicker, no more than 0.01 nats from it "
        "and recalled as many facts";
  } else {
    verdict.best = 0;
    verdict.nothing_to_change = true;
    verdict.why = "full fits, and nothing that was measured is more than 10 % quicker and as good";
  }
  return verdict;
}

}  // namespace

std::optional<Candidate> plan_candidate(const Room& room, const paddock::EngineOptions& options) {
  constexpr uint64_t kFreeNow = 0;
  try {
    const paddock::EnginePlan plan = paddock::plan_engine(room.model, options, {&kFreeNow, 1});
    Candidate candidate;
    candidate.options = options;
    candidate.kv_type = plan.options.kv.type;
    candidate.pool_bytes = plan.pool_bytes;
    candidate.total_bytes = plan.total_bytes;
    candidate.fits = plan.fits[0].fits && (!room.memory || candidate.pool_bytes <= *room.memory);
    return candidate;
  } catch (const paddock::Error& e) {
    if (!is_refusal(e)) throw;
    return std::nullopt;
  }
}

std::vector<Candidate> rule_candidates(const Room& room) {
  paddock::EngineOptions options = room.options;
  options.kv.policy = "full";
  std::vector<Candidate> candidates;
  const auto add = [&](const paddock::EngineOptions& wanted) {
    const auto planned = plan_candidate(room, wanted);
    if (planned) candidates.push_back(*planned);
  };
  add(options);
  // What full is refused for, whatever the rule: the caller is to hear of it.
  if (candidates.empty()) paddock::plan_engine(room.model, options);
  const bool full_fits = candidates[0].fits;
  const paddock::EnginePlan full = paddock::plan_engine(room.model, options);
  options.batch_size = batch_for(room, full.kv_bytes_per_token);
  const int64_t context = full.options.context;
  const int64_t most = std::max(kLeastBudget, down(full_fits ? context / 2 : context));
  if (!full_fits && room.memory) {
    // One without a budget has what there is.
    paddock::EngineOptions elastic = options;
    elastic.kv.policy = "h2o";
    elastic.kv.budget_bytes = *room.memory;
    paddock::EngineOptions share = elastic;  // each user's, if all have as much
    share.kv.budget_bytes /= static_cast<uint64_t>(share.max_sequences);
    share.max_sequences = 1;
    const auto own = plan_candidate(room, share);
    if (own && own->fits) add(elastic);
  }
  for (const bool half : {false, true}) {
    for (const Form& form : kForms) {
      const int64_t largest = largest_budget(room, options, form, most);
      const int64_t budget = half ? down(largest / 2) : largest;
      if (budget < kLeastBudget) continue;
      paddock::EngineOptions wanted = options;
      wanted.kv.policy = spec(form, budget);
      add(wanted);
    }
  }
  return candidates;
}

std::vector<Candidate> setting_candidates(const Room& room, const Candidate& base) {
  std::vector<Candidate> candidates;
  const auto add = [&](paddock::EngineOptions options, const std::string& change) {
    auto planned = plan_candidate(room, options);
    if (!planned || !planned->fits) return;
    planned->change = change;
    candidates.push_back(std::move(*planned));
  };
  paddock::EngineOptions options = base.options;
  for (const int32_t batch : {128, 32}) {
    options.batch_size = batch;
    if (batch < base.options.batch_size) add(options, fmt::format("-b {}", batch));
  }
  for (const int32_t block : {8, 32}) {
    options = base.options;
    options.kv.block_size = block;
    add(options, fmt::format("--kv-block-size {}", block));
  }
  for (const paddock::KvType type : {paddock::KvType::kBF16, paddock::KvType::kF32}) {
    options = base.options;
    options.kv.type = type;
    add(options, fmt::format("--kv-type {}", paddock::kv_type_name(type)));
  }
  return candidates;
}

void mark_front(std::vector<Candidate>& candidates) {
  for (Candidate& c : candidates) {
    c.is_on_front = is_measured(c) &&
                    std::none_of(candidates.begin(), candidates.end(), [&](const Candidate& other) {
                      return is_measured(other) && beats(other, c);
                    });
  }
}

Verdict judge(const std::vector<Candidate>& candidates) {
  if (candidates[0].fits) return judge_beside_full(candidates);
  Verdict verdict;
  std::optional<size_t> first;  // of those that fit
  for (size_t i = 1; i < candidates.size(); ++i) {
    const Candidate& c = candidates[i];
    if (!c.fits) continue;
    if (!first) first = i;
    if (!is_measured(c) || !c.quality->dropped) continue;
    if (!verdict.best || is_better(c, candidates[*verdict.best])) verdict.best = i;
  }
  if (verdict.best) {
    verdict.why =
        "full does not fit; of what does, this recalled most facts and, among those, was "
        "nearest to full";
  } else if (first) {
    verdict.best = first;
    verdict.why =
        "full does not fit; this does, and was not measured against others: give it more "
        "--time, or a longer text";
  } else {
    verdict.why = fmt::format(
        "nothing fits: full needs {} of KV pool; raise --memory, or lower -c "
        "or --users",
        size_text(candidates[0].pool_bytes));
  }
  return verdict;
}

std::string flags_of(const Candidate& candidate) {
  const paddock::EngineOptions& o = candidate.options;
  std::string flags = fmt::format("--kv-policy {} -c {}", o.kv.policy, o.context);
  if (o.batch_size != kEngineDefaults.batch_size) flags += fmt::format(" -b {}", o.batch_size);
  if (o.kv.block_size != kEngineDefaults.kv.block_size) {
    flags += fmt::format(" --kv-block-size {}", o.kv.block_size);
  }
  if (o.kv.type != paddock::KvType::kAuto) {
    flags += fmt::format(" --kv-type {}", paddock::kv_type_name(o.kv.type));
  }
  if (o.kv.budget_bytes != 0) {
    const std::string size = size_text(o.kv.budget_bytes);
    const bool is_exact = parse_size("--kv-budget", size) == o.kv.budget_bytes;
    flags += " --kv-budget " + (is_exact ? size : fmt::format("{}", o.kv.budget_bytes));
  }
  if (o.threads != kEngineDefaults.threads) flags += fmt::format(" -t {}", o.threads);
  if (o.device != kEngineDefaults.device) flags += " --device " + o.device;
  if (o.precision == paddock::Precision::kReference) flags += " --precision reference";
  if (!o.isa.empty()) flags += " --isa " + o.isa;
  return flags;
}

}  // namespace cli
