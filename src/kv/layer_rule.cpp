#include "kv/layer_rule.h"

#include <algorithm>
#include <limits>

#include "core/checked.h"
#include "core/fail.h"

namespace paddock {
namespace {

/// Asks a policy something.
template <typename Fn>
void ask(const std::string& name, const char* what, const Fn& fn) {
  const auto refuse = [&](std::string_view threw) {
    throw PolicyThrew(
        ErrorCode::kInvalidArgument,
        fmt::format("policy '{}': {}() threw {}; mend it, it must answer", name, what, threw));
  };
  try {
    fn();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    refuse(fmt::format("'{}'", e.what()));
  } catch (...) {
    refuse("something that is no std::exception");
  }
}

void check_visibility(const std::string& name, const TokenVisibility& v, int32_t layer) {
  if (v.sinks < 0 || v.window < 1 ||
      (v.bounded() && int64_t{v.sinks} + v.window >= int64_t{kUnlimited})) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}' answers {} sinks and a window of {} for layer {}; sinks must be 0 or more, "
         "the window 1 or more, and their sum below {}",
         name, v.sinks, v.window, layer, kUnlimited);
  }
}

void check_schedule(const std::string& name, const TrimSchedule& s, int32_t layer) {
  if (s.budget < 1 || s.every < 0 || s.observe < 0 || s.keep_first < 0 || s.keep_newest < 0) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}' answers a budget of {}, every {}, observe {}, keep_first {} and keep_newest "
         "{} "
         "for layer {}; the budget must be 1 or more, the others 0 or more",
         name, s.budget, s.every, s.observe, s.keep_first, s.keep_newest, layer);
  }
  if (s.budget == kUnlimited) return;
  if (s.every > 0 && int64_t{s.budget} + s.every >= kUnlimited) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}': budget and interval of layer {} are {} together; they must stay below {}",
         name, layer, int64_t{s.budget} + s.every, kUnlimited);
  }
  if (s.every > 0 && s.observe > s.every) {
    fail(
        ErrorCode::kInvalidArgument,
        "policy '{}' observes {} queries before a decision but decides every {} positions in layer "
        "{}; observe that many at most",
        name, s.observe, s.every, layer);
  }
  if (s.newest_divisor != 0 &&
      (s.newest_divisor < 0 || s.budget / s.newest_divisor != s.keep_newest)) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}': in layer {} keep_newest is {}, not the budget of {} divided by "
         "newest_divisor, {}; leave that 0 where what is protected does not grow with the budget",
         name, layer, s.keep_newest, s.budget, s.newest_divisor);
  }
  if (int64_t{s.keep_first} + s.keep_newest >= s.budget) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}': {} first and {} newest positions are protected in layer {}, which leaves "
         "nothing to choose from in a budget of {}; raise the budget or protect fewer",
         name, s.keep_first, s.keep_newest, layer, s.budget);
  }
}

}  // namespace

LayerRule::LayerRule(std::shared_ptr<const EvictionPolicy> asked, int32_t layer, int32_t n_layers)
    : policy(std::move(asked)) {
  TokenVisibility v;
  ask("", "name", [&] { name = policy->name(); });
  ask(name, "positions", [&] { positions = policy->positions(); });
  ask(name, "needs", [&] { needs = policy->needs(); });
  ask(name, "is_elastic", [&] { is_elastic = policy->is_elastic(); });
  if (is_elastic) {
    ask(name, "min_budget", [&] { min_budget = policy->min_budget(); });
    schedule = schedule_with(kUnlimited, layer, n_layers);
  } else {
    ask(name, "schedule", [&] { schedule = policy->schedule(layer, n_layers); });
  }
  ask(name, "shares_by_need", [&] { shares_by_need = policy->shares_by_need(); });
  most_budget = schedule.budget;
  ask(name, "visibility", [&] { v = policy->visibility(layer); });
  if (positions != Positions::kOriginal && positions != Positions::kCompact) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}' answers {} for positions(); it must be kOriginal (0) or kCompact (1)", name,
         static_cast<int>(positions));
  }
  check_visibility(name, v, layer);
  check_schedule(name, schedule, layer);
  if (is_elastic && (schedule.budget != kUnlimited || schedule.every < 1 || min_budget < 0 ||
                     min_budget == kUnlimited)) {
    fail(ErrorCode::kInvalidArgument,
         "policy '{}' is elastic, but answers a budget of {} and every {} for an unlimited one in "
         "layer {}, and a least budget of {}; the first must be {}, the others 1 or more, and 0 or "
         "more but less than that",
         name, schedule.budget, schedule.every, layer, min_budget, kUnlimited);
  }
  if (trims() && v.bounded()) {
    fail(
        ErrorCode::kInvalidArgument,
        "policy '{}' both trims and limits what queries see in layer {}; it must do one of the two",
        name, layer);
  }
  if (!trims()) needs = {};
  shares_by_need = shares_by_need && trims();
  visibility = {v.sinks, v.window};
  // Without a window every block is seen whole, and a window alone needs no turned queries.
  if (v.bounded() && v.sinks > 0) {
    const bool compact = positions == Positions::kCompact;
    rotations.push_back({0, compact ? v.sinks + v.window - 1 : kUnlimited});
  }
  rotations.push_back({});
}

TrimSchedule LayerRule::schedule_with(int32_t budget, int32_t layer, int32_t n_layers) const {
  TrimSchedule answer;
  ask(name, "schedule", [&] { answer = policy->schedule(layer, n_layers, budget); });
  if (budget != kUnlimited && (answer.budget == kUnlimited || answer.every != schedule.every ||
                               answer.observe != schedule.observe)) {
    throw PolicyIgnoresBudget(
        ErrorCode::kInvalidArgument,
        fmt::format("policy '{}' {}, but for a budget of {} answers one of {}, every {} "
                    "and observe {} in layer {}; the first must be below {}, the others the same "
                    "for all budgets, {} and {}",
                    name, is_elastic ? "is elastic" : "shares by need", budget, answer.budget,
                    answer.every, answer.observe, layer, kUnlimited, schedule.every,
                    schedule.observe));
  }
  if (shares_by_need && answer.budget > budget) {
    throw PolicyIgnoresBudget(
        ErrorCode::kInvalidArgument,
        fmt::format("policy '{}' shares by need, but of a share of {} takes {} in layer {}; it "
                    "must take no more than it is given",
                    name, budget, answer.budget, layer));
  }
  check_schedule(name, answer, layer);
  return answer;
}

int64_t most_protected(const TrimSchedule& schedule, int32_t block_size) {
  const auto first = static_cast<int64_t>(round_up(schedule.keep_first, block_size));
  return first + std::max<int64_t>(block_size, int64_t{schedule.keep_newest} + block_size - 1);
}

bool leaves_choice(const TrimSchedule& schedule, int32_t block_size) {
  return most_protected(schedule, block_size) <= schedule.budget;
}

void LayerRule::check_block_size(int32_t block_size, int32_t layer) const {
  if (schedule.budget == kUnlimited || leaves_choice(schedule, block_size)) return;
  fail(ErrorCode::kInvalidArgument,
       "policy '{}': with blocks of {} positions up to {} of its {} positions in layer {} are "
       "protected (whole blocks, the newest always); raise the budget, protect fewer positions or "
       "lower the block size",
       name, block_size, most_protected(schedule, block_size), schedule.budget, layer);
}

bool LayerRule::decides_at(int64_t length, int64_t prompt) const {
  if (!trims()) return false;
  return schedule.every == 0 ? prompt > 0 && length == prompt : length % schedule.every == 0;
}

bool LayerRule::observes_from(int64_t length, int64_t prompt) const {
  if (!trims() || schedule.observe == 0) return false;
  return decides_at(length + schedule.observe, prompt);
}

int64_t LayerRule::next_split(const TrimSchedule& asked, int64_t length, int64_t prompt) const {
  int64_t next = std::numeric_limits<int64_t>::max();
  if (has_sinks() && length < splits_at()) next = splits_at();
  if (asked.budget == kUnlimited) return next;
  const auto consider = [&](int64_t at) {
    if (at > length) next = std::min(next, at);
  };
  if (asked.every == 0) {
    if (prompt > 0) {
      consider(prompt - asked.observe);
      consider(prompt);
    }
    return next;
  }
  const int64_t decision = (length / asked.every + 1) * asked.every;
  consider(decision);
  if (asked.observe > 0) {
    // The nearest length that lies `observe` before some decision.
    const int64_t from = (length + asked.observe) / asked.every * asked.every;
    consider(from - asked.observe);
    consider(from + asked.every - asked.observe);
  }
  return next;
}

int64_t LayerRule::max_resident(int64_t chunk) const {
  if (has_window()) return splits_at() + chunk;
  return bounded() ? most_budget + schedule.every : int64_t{kUnlimited};
}

int64_t LayerRule::max_pages(int64_t block_size, int64_t positions_, int64_t chunk) const {
  const auto all = static_cast<int64_t>(ceil_div(positions_, block_size));
  if (!bounded()) return all;
  if (schedule.budget != kUnlimited) {
    return std::min(
        all, blocks_touched(most_budget, block_size) + blocks_touched(schedule.every, block_size));
  }
  const auto sink_blocks = static_cast<int64_t>(ceil_div(visibility.sinks, block_size));
  return std::min(all, sink_blocks + blocks_touched(visibility.window - 1 + chunk, block_size));
}

bool same_rotations(const LayerRule& a, const LayerRule& b) {
  return std::equal(a.rotations.begin(), a.rotations.end(), b.rotations.begin(), b.rotations.end(),
                    [](const Rotation& x, const Rotation& y) {
                      return x.query_shift == y.query_shift && x.query_cap == y.query_cap;
                    });
}

}  // namespace paddock
