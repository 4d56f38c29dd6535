#include "trace/reader.h"

namespace paddock::trace {
namespace {

TrimSchedule read_schedule(Decoder& in) {
  TrimSchedule s;
  s.budget = in.small();
  s.every = in.small();
  s.observe = in.small();
  s.keep_first = in.small();
  s.keep_newest = in.small();
  s.newest_divisor = in.small();
  return s;
}

}  // namespace

void Reader::read_record(Decoder& in) {
  const auto tag = static_cast<Tag>(in.u8());
  if ((tag == Tag::kHeader) == has_header_)
    in.refuse("the engine is not described first, and once");
  if (tag == Tag::kHeader) return read_header(in);
  if (tag == Tag::kRules) return read_rules(in);
  if (tag == Tag::kEnd) {
    is_ended_ = true;
    return give(TraceEnd{});
  }
  if (read_steps(tag, in) || read_sequences(tag, in) || read_prefixes(tag, in)) return;
  if (!read_leaving(tag, in)) {
    in.refuse(fmt::format("there is no record of kind {}", static_cast<int>(tag)));
  }
}

void Reader::read_header(Decoder& in) {
  TraceHeader& h = header_;
  h.library = in.text();
  h.model = in.text();
  h.n_layers = in.small();
  h.n_heads = in.small();
  h.n_kv_heads = in.small();
  h.head_dim = in.small();
  h.vocab_size = in.small();
  h.device = in.text();
  h.kv_type = in.text();
  h.block_size = in.small();
  h.page_bytes = in.number();
  h.pool_pages = in.number();
  h.context = in.number();
  h.model_context = in.number();
  h.batch_size = in.small();
  h.max_sequences = in.small();
  h.reuse = in.u8() != 0;
  h.reclaim = in.text();
  h.has_tokens = in.u8() != 0;
  h.has_scores = in.u8() != 0;
  h.has_times = in.u8() != 0;
  h.started = in.number();
  has_header_ = true;
  give(header_);
}

void Reader::read_rules(Decoder& in) {
  const int32_t number = in.small();
  if (number == 0) rules_.clear();
  if (number != static_cast<int32_t>(rules_.size())) in.refuse("rules are not told in order");
  TraceRules rules;
  rules.number = number;
  rules.policy = in.text();
  const size_t n = in.count();
  if (n != static_cast<size_t>(header_.n_layers)) in.refuse("there is not one rule for each layer");
  for (size_t i = 0; i < n; ++i) {
    TraceRules::Layer& layer = rules.layers.emplace_back();
    layer.policy = in.text();
    layer.visibility.sinks = in.small();
    layer.visibility.window = in.small();
    layer.schedule = read_schedule(in);
    const uint8_t flags = in.u8();
    layer.needs = {(flags & 1) != 0, (flags & 2) != 0};
    layer.is_elastic = (flags & 4) != 0;
    layer.shares_by_need = (flags & 8) != 0;
    layer.is_compact = (flags & 16) != 0;
  }
  rules_.push_back(rules);
  give(std::move(rules));
}

bool Reader::read_steps(Tag tag, Decoder& in) {
  switch (tag) {
    case Tag::kRequest: {
      take_time(in);
      TraceRequest r;
      r.request = in.number();
      r.session = in.number();
      r.answer = in.small();
      r.begin = in.number();
      r.prompt_tokens = in.number();
      r.priority = static_cast<int32_t>(in.difference());
      r.max_tokens = in.small();
      give(r);
      return true;
    }
    case Tag::kRun: {
      TraceRun run{in.sequence()};
      run.request = in.number();
      run.session = in.number();
      give(run);
      return true;
    }
    case Tag::kFinish: {
      take_time(in);
      TraceFinish f;
      f.request = in.number();
      const uint8_t reason = in.u8();
      if (reason > static_cast<uint8_t>(FinishReason::kError)) in.refuse("a reason is not known");
      f.reason = static_cast<FinishReason>(reason);
      f.made_tokens = in.number();
      f.cached_tokens = in.number();
      f.recomputed_tokens = in.number();
      f.preemptions = in.small();
      give(f);
      return true;
    }
    case Tag::kStepBegin:
      take_time(in);
      give(TraceStepBegin{});
      return true;
    case Tag::kStepEnd: {
      TraceStepEnd end{in.u8() != 0};
      const int64_t before = state_.micros;
      take_time(in);
      end.seconds = static_cast<double>(plus(state_.micros, -before)) * 1e-6;
      give(end);
      return true;
    }
    case Tag::kTick:
      state_.pages_free = plus(state_.pages_free, in.difference());
      state_.pages_cached = plus(state_.pages_cached, in.difference());
      give(TraceTick{state_.pages_free, state_.pages_cached});
      state_.steps = plus(state_.steps, 1);
      return true;
    default:
      return false;
  }
}

bool Reader::read_sequences(Tag tag, Decoder& in) {
  switch (tag) {
    case Tag::kOpen: {
      TraceOpen open{in.sequence()};
      open.is_pin = in.u8() != 0;
      open.rules = in.small();
      state_.length(open.sequence) = 0;
      state_.rules(open.sequence) = open.rules;
      give(open);
      return true;
    }
    case Tag::kClose: {
      TraceClose close{in.sequence()};
      const uint8_t reason = in.u8();
      if (reason >= kRemovalReasons) in.refuse("a reason is not known");
      close.reason = static_cast<RemovalReason>(reason);
      give(close);
      state_.length(close.sequence) = 0;
      return true;
    }
    case Tag::kFork: {
      TraceFork fork{in.sequence()};
      fork.to = in.sequence();
      const int64_t length = state_.length(fork.from);
      state_.length(fork.to) = length;
      give(fork);
      return true;
    }
    case Tag::kCommit: {
      TraceCommit commit{in.sequence()};
      commit.n_tokens = in.small();
      commit.pages_per_layer = in.number();
      int64_t& length = state_.length(commit.sequence);
      length = plus(length, commit.n_tokens);
      commit.length = length;
      give(commit);
      return true;
    }
    case Tag::kTokens: {
      TraceTokens tokens{in.sequence()};
      tokens.first_position = in.number();
      const size_t n = in.count();
      for (size_t i = 0; i < n; ++i) tokens.ids.push_back(in.small());
      give(std::move(tokens));
      return true;
    }
    case Tag::kPiece: {
      TracePiece piece{in.small()};
      piece.bytes = in.text();
      give(std::move(piece));
      return true;
    }
    case Tag::kBlock: {
      TraceBlock block{in.sequence()};
      block.block = in.number();
      block.hash = in.fixed(8);
      give(block);
      return true;
    }
    case Tag::kRefusal: {
      TraceRefusal refusal{in.sequence()};
      refusal.n_tokens = in.small();
      give(refusal);
      return true;
    }
    default:
      return false;
  }
}

bool Reader::read_prefixes(Tag tag, Decoder& in) {
  switch (tag) {
    case Tag::kPrefix: {
      TracePrefix prefix{in.sequence()};
      prefix.from = in.number();
      prefix.to = in.number();
      prefix.lookups = in.number();
      prefix.hits = in.number();
      state_.length(prefix.sequence) = prefix.to;
      give(prefix);
      return true;
    }
    case Tag::kListed: {
      TraceListed listed{in.sequence(), layer(in)};
      const int64_t first = in.small(), n = in.small();
      listed.first_position = first * header_.block_size;
      listed.n_tokens = n * header_.block_size;
      give(listed);
      return true;
    }
    case Tag::kMiss: {
      TraceMiss miss{in.sequence()};
      const uint8_t reason = in.u8();
      if (reason > static_cast<uint8_t>(MissReason::kNotShared)) in.refuse("a reason is not known");
      miss.miss.reason = static_cast<MissReason>(reason);
      miss.miss.position = in.difference();
      miss.miss.differs_at = in.difference();
      miss.miss.step = in.difference();
      miss.miss.request = in.number();
      miss.lookups = in.number();
      miss.regrets = in.number();
      give(miss);
      return true;
    }
    case Tag::kCut: {
      TraceCut cut{in.sequence()};
      cut.length = in.number();
      state_.length(cut.sequence) = cut.length;
      give(cut);
      return true;
    }
    case Tag::kPassed: {
      TracePassed passed{in.sequence(), layer(in)};
      passed.first_position = in.number();
      passed.n_tokens = in.small();
      give(passed);
      return true;
    }
    case Tag::kCopy: {
      const int32_t sequence = in.sequence();
      give(TraceCopy{sequence, layer(in)});
      return true;
    }
    case Tag::kMerge: {
      const int32_t sequence = in.sequence();
      give(TraceMerge{sequence, layer(in)});
      return true;
    }
    default:
      return false;
  }
}

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
    d.schedule = read_schedule(in);
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
  if ((flags & 7) >= kRemovalReasons) in.refuse("a reason is not known");
  e.reason = static_cast<RemovalReason>(flags & 7);
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
  if (e.reason == RemovalReason::kPolicyTrim) {
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

}  // namespace paddock::trace
