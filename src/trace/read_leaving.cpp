// What left the cache, as record_leaving.cpp has written it down.
#include <bit>
#include <utility>

#include "trace/reader.h"

namespace paddock::trace {

bool Reader::read_leaving(Tag tag, Decoder& in) {
  switch (tag) {
    case Tag::kDecision:
      read_decision(in);
      return true;
    case Tag::kCandidates:
      read_candidates(in);
      return true;
    case Tag::kRemoval:
      read_removal(in);
      return true;
    case Tag::kBudget:
      read_budget(in);
      return true;
    case Tag::kPreemption:
      read_preemption(in);
      return true;
    case Tag::kLimit:
      give(TraceLimit{in.number()});
      return true;
    case Tag::kViolation:
      give(TraceViolation{in.text()});
      return true;
    case Tag::kShortfall:
      give(TraceViolation{});
      return true;
    default:
      return false;
  }
}

void Reader::read_decision(Decoder& in) {
  TraceDecision& d = decision_;
  d = {};
  d.sequence = in.sequence();
  d.layer = layer(in);
  const uint8_t flags = in.u8();
  d.is_replayed = (flags & 2) != 0;
  d.length = state_.length(d.sequence);
  d.tokens = in.number();
  d.left_together = in.small();
  const TraceRules::Layer* plain = rule(state_.rules(d.sequence), d.layer);
  if ((flags & 1) == 0) {
    d.schedule = in.schedule();
  } else if (plain != nullptr) {
    d.schedule = plain->schedule;
  } else {
    in.refuse("a rule decides that is not described");
  }
  if ((flags & 4) != 0) {
    d.runner_up_position = in.number();
    d.runner_up_score = in.real();
  }
  state_.rank = 0;
  give(d);
}

void Reader::read_candidates(Decoder& in) {
  TraceCandidates all{decision_.sequence, decision_.layer, {}};
  const size_t n = in.count();
  int64_t last = 0;
  for (size_t i = 0; i < n; ++i) {
    TraceCandidates::Block block;
    const uint8_t flags = in.u8();
    block.is_protected = (flags & 1) != 0;
    block.is_ranked = (flags & 2) != 0;
    last = plus(last, in.difference());
    block.first_position = last;
    block.n_tokens = in.small();
    block.mass = static_cast<double>(in.number()) / kMassUnit;
    block.recent_mass = static_cast<double>(in.number()) / kMassUnit;
    block.last_used = in.difference();
    block.key_norm = std::bit_cast<float>(static_cast<uint32_t>(in.fixed(4)));
    if (block.is_ranked) block.score = in.real();
    all.blocks.push_back(block);
  }
  give(std::move(all));
}

void Reader::read_removal(Decoder& in) {
  TraceRemoval removal;
  KvEvent& e = removal.event;
  const uint8_t flags = in.u8();
  const int reason = flags & kReasonBits;
  if (reason >= kRemovalReasons) in.refuse("a reason is not known");
  e.reason = static_cast<RemovalReason>(reason);
  e.number = static_cast<uint64_t>(state_.events++);
  e.step = state_.steps;
  e.layer = layer(in);
  e.sequence = static_cast<int32_t>(in.below(kMostSequences + 1, "a sequence")) - 1;
  state_.last_position = plus(state_.last_position, in.difference());
  e.first_position = state_.last_position;
  e.n_tokens = in.small();
  e.length = (flags & kHasLength) != 0 ? in.number()
             : e.sequence < 0          ? 0
                                       : state_.length(e.sequence);
  e.age_steps = in.number();
  if ((flags & kIsIdle) != 0) e.idle_steps = in.number();
  e.overruled = (flags & kIsOverruled) != 0;
  removal.retained = (flags & kIsRetained) != 0;
  removal.measured = (flags & kIsMeasured) != 0;
  if (removal.measured) {
    removal.mass = static_cast<double>(in.number()) / kMassUnit;
    removal.last_used = in.difference();
  }
  if (is_by_score(e.reason)) {
    e.score = in.real();
    e.sufficient_budget = in.number();
    e.runner_up_position = decision_.runner_up_position;
    e.runner_up_score = decision_.runner_up_score;
    e.left_together = decision_.left_together;
    e.rank = state_.rank++;
  }
  int32_t rules = e.sequence < 0 ? 0 : state_.rules(e.sequence);
  if (e.sequence < 0) {
    rules = in.small();
    removal.request = in.number();
    removal.text_hash = in.fixed(8);
  }
  const TraceRules::Layer* its = rule(rules, e.layer);
  if (its != nullptr) e.policy = its->policy;
  give(std::move(removal));
}

void Reader::read_budget(Decoder& in) {
  KvBudgetChange c;
  c.number = state_.changes++;
  c.step = state_.steps;
  c.sequence = static_cast<int32_t>(in.below(kMostSequences + 1, "a sequence")) - 1;
  c.length = in.number();
  c.before = in.small();
  c.after = in.small();
  c.request = in.number();
  c.scored_from = in.number();
  c.first_event = static_cast<uint64_t>(state_.events);
  c.pages = in.number();
  const size_t n = in.count();
  for (size_t i = 0; i < n; ++i) c.layer_pages.push_back(in.number());
  give(TraceBudget{std::move(c)});
}

void Reader::read_preemption(Decoder& in) {
  KvPreemption p;
  p.number = state_.preemptions++;
  p.step = state_.steps;
  p.sequence = in.sequence();
  p.parked = in.number();
  p.session = in.number();
  p.request = in.number();
  p.tokens = in.number();
  p.pages = in.number();
  p.first_event = static_cast<uint64_t>(plus(state_.events, -in.number()));
  give(TracePreemption{p});
}

}  // namespace paddock::trace
