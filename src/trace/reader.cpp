// Records of the engine and its sequences; of what leaves: read_leaving.cpp.
#include "trace/reader.h"

namespace paddock::trace {

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
  if (read_steps(tag, in) || read_sequences(tag, in) || read_texts(tag, in)) return;
  if (!read_prefixes(tag, in) && !read_leaving(tag, in)) {
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
    layer.schedule = in.schedule();
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
    case Tag::kMemory: {
      take_time(in);
      TraceMemory memory;
      memory.process.resident_bytes = in.varint();
      memory.process.available_bytes = in.varint();
      memory.device.device = in.text();
      memory.device.reserved_bytes = in.varint();
      memory.device.process_bytes = in.varint();
      memory.device.free_bytes = in.varint();
      memory.device.total_bytes = in.varint();
      give(std::move(memory));
      return true;
    }
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
      f.reason = static_cast<FinishReason>(in.u8());
      if (finish_reason_name(f.reason) == std::string_view("unknown")) {
        in.refuse("a reason is not known");
      }
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
    case Tag::kCut: {
      TraceCut cut{in.sequence()};
      cut.length = in.number();
      state_.length(cut.sequence) = cut.length;
      give(cut);
      return true;
    }
    case Tag::kProtection: {
      TraceProtection protection{in.sequence()};
      const size_t n = in.count();
      for (size_t i = 0; i < n; ++i) {
        const int64_t first = in.small();
        protection.ranges.push_back({first, in.small()});
      }
      give(std::move(protection));
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

bool Reader::read_texts(Tag tag, Decoder& in) {
  switch (tag) {
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
      const uint8_t flags = in.u8();
      const auto reason = static_cast<uint8_t>(flags & ~kIsAgain);
      if (reason >= kMissReasons) in.refuse("a reason is not known");
      miss.miss.again = (flags & kIsAgain) != 0;
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

}  // namespace paddock::trace
