// Frames, and what the engine and its sequences tell; of what leaves: record_leaving.cpp.
#include "trace/recorder.h"

#include <utility>

namespace paddock {

using trace::Tag;

namespace {

/// Of the memory in which a step's records come together, at the start.
constexpr size_t kCapacity = 256 * 1024;

/// Fills in what stands before the records of a frame.
void seal(trace::Writer& out, uint64_t frame) {
  const size_t size = out.size();
  const uint32_t check = trace::checksum(frame, out.view(trace::kFrameHeader));
  out.cut(0);
  out.fixed(size - trace::kFrameHeader, 4);
  out.fixed(trace::checksum(frame, out.view()), 4);
  out.fixed(check, 4);
  out.cut(size);
}

}  // namespace

TraceRecorder::TraceRecorder(const KvTrace& options, const TraceHeader& header, Piece piece)
    : options_(options), piece_(std::move(piece)), out_(kCapacity), spare_(kCapacity) {
  for (size_t i = 0; i < trace::kFrameHeader; ++i) {
    out_.u8(0);
    spare_.u8(0);
  }
  owners_.resize(static_cast<size_t>(header.max_sequences));
  state_.lengths.resize(static_cast<size_t>(header.max_sequences));
  if (options_.tokens) told_.resize(static_cast<size_t>(header.vocab_size));
  write(Tag::kHeader, [&] { write_header(header); });
}

TraceRecorder::~TraceRecorder() {
  write(Tag::kEnd, [] {});
  flush();
}

bool TraceRecorder::flush() noexcept {
  const bool is_empty = out_.size() == trace::kFrameHeader;
  if (plain_.empty() || is_empty || is_flushing_ || !options_.sink) return true;
  is_flushing_ = true;
  // While the sink is called others may be told of what it does.
  std::swap(out_, spare_);
  out_.cut(trace::kFrameHeader);
  try {
    if (!std::exchange(is_begun_, true)) {
      trace::Writer file(trace::kFileHeader);
      for (const char c : kTraceMagic) file.u8(static_cast<uint8_t>(c));
      file.fixed(kTraceVersion, 4);
      options_.sink(file.view());
    }
    seal(spare_, frame_++);
    options_.sink(spare_.view());
  } catch (...) {
    is_over_ = true;
    options_.sink = nullptr;
  }
  is_flushing_ = false;
  return options_.sink != nullptr;
}

int64_t TraceRecorder::tick_time() {
  if (!options_.times) return 0;
  const auto since = std::chrono::steady_clock::now() - start_;
  const int64_t now = std::chrono::duration_cast<std::chrono::microseconds>(since).count();
  return now - std::exchange(state_.micros, now);
}

void TraceRecorder::write_header(const TraceHeader& h) {
  out_.text(h.library);
  out_.text(h.model);
  out_.number(h.n_layers);
  out_.number(h.n_heads);
  out_.number(h.n_kv_heads);
  out_.number(h.head_dim);
  out_.number(h.vocab_size);
  out_.text(h.device);
  out_.text(h.kv_type);
  out_.number(h.block_size);
  out_.number(h.page_bytes);
  out_.number(h.pool_pages);
  out_.number(h.context);
  out_.number(h.model_context);
  out_.number(h.batch_size);
  out_.number(h.max_sequences);
  out_.u8(h.reuse ? 1 : 0);
  out_.text(h.reclaim);
  out_.u8(options_.tokens ? 1 : 0);
  out_.u8(options_.scores ? 1 : 0);
  out_.u8(options_.times ? 1 : 0);
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  out_.number(options_.times ? std::chrono::duration_cast<std::chrono::seconds>(since).count() : 0);
}

void TraceRecorder::rules(const TraceRules& rules) noexcept {
  write(Tag::kRules, [&] {
    if (rules.number == 0) plain_.clear();
    std::vector<TrimSchedule>& plain = plain_.emplace_back();
    out_.number(rules.number);
    out_.text(rules.policy);
    out_.number(static_cast<int64_t>(rules.layers.size()));
    for (const TraceRules::Layer& layer : rules.layers) {
      out_.text(layer.policy);
      out_.number(layer.visibility.sinks);
      out_.number(layer.visibility.window);
      out_.schedule(layer.schedule);
      out_.u8(static_cast<uint8_t>((layer.needs.attention ? 1 : 0) |
                                   (layer.needs.key_norms ? 2 : 0) | (layer.is_elastic ? 4 : 0) |
                                   (layer.shares_by_need ? 8 : 0) | (layer.is_compact ? 16 : 0)));
      plain.push_back(layer.schedule);
    }
  });
}

void TraceRecorder::memory(const TraceMemory& m) noexcept {
  if (!options_.times) return;
  write(Tag::kMemory, [&] {
    out_.number(tick_time());
    out_.varint(m.process.resident_bytes);
    out_.varint(m.process.available_bytes);
    out_.text(m.device.device);
    out_.varint(m.device.reserved_bytes);
    out_.varint(m.device.process_bytes);
    out_.varint(m.device.free_bytes);
    out_.varint(m.device.total_bytes);
  });
}

// ---- requests and steps

void TraceRecorder::requested(const TraceRequest& r) noexcept {
  write(Tag::kRequest, [&] {
    out_.number(tick_time());
    out_.number(r.request);
    out_.number(r.session);
    out_.number(r.answer);
    out_.number(r.begin);
    out_.number(r.prompt_tokens);
    out_.difference(r.priority);
    out_.number(r.max_tokens);
  });
}

void TraceRecorder::finished(const TraceFinish& f) noexcept {
  write(Tag::kFinish, [&] {
    out_.number(tick_time());
    out_.number(f.request);
    out_.u8(static_cast<uint8_t>(f.reason));
    out_.number(f.made_tokens);
    out_.number(f.cached_tokens);
    out_.number(f.recomputed_tokens);
    out_.number(f.preemptions);
  });
}

void TraceRecorder::runs(int32_t sequence, int64_t request, int64_t session) noexcept {
  Owner& owner = owners_[static_cast<size_t>(sequence)];
  if (owner.request == request && owner.session == session) return;
  owner = {request, session};
  write(Tag::kRun, [&] {
    out_.number(sequence);
    out_.number(request);
    out_.number(session);
  });
}

void TraceRecorder::step_begins() noexcept {
  write(Tag::kStepBegin, [&] { out_.number(tick_time()); });
}

void TraceRecorder::step_ends(bool completed) noexcept {
  write(Tag::kStepEnd, [&] {
    out_.u8(completed ? 1 : 0);
    out_.number(tick_time());
  });
}

void TraceRecorder::ticked(int64_t pages_free, int64_t pages_cached) noexcept {
  ++state_.steps;
  write(Tag::kTick, [&] {
    out_.difference(pages_free - std::exchange(state_.pages_free, pages_free));
    out_.difference(pages_cached - std::exchange(state_.pages_cached, pages_cached));
  });
}

// ---- sequences

void TraceRecorder::opened(int32_t sequence, bool is_pin, int32_t rules) noexcept {
  write(Tag::kOpen, [&] {
    state_.length(sequence) = 0;
    if (static_cast<size_t>(sequence) < owners_.size()) owners_[sequence] = {};
    out_.number(sequence);
    out_.u8(is_pin ? 1 : 0);
    out_.number(rules);
    state_.rules(sequence) = rules;
  });
}

void TraceRecorder::closed(int32_t sequence, RemovalReason reason) noexcept {
  write(Tag::kClose, [&] {
    out_.number(sequence);
    out_.u8(static_cast<uint8_t>(reason));
    state_.length(sequence) = 0;
  });
}

void TraceRecorder::forked(int32_t from, int32_t to) noexcept {
  write(Tag::kFork, [&] {
    out_.number(from);
    out_.number(to);
    const int64_t length = state_.length(from);
    state_.length(to) = length;
  });
}

void TraceRecorder::protects(int32_t sequence, std::span<const PositionRange> ranges) noexcept {
  write(Tag::kProtection, [&] {
    out_.number(sequence);
    out_.number(static_cast<int64_t>(ranges.size()));
    for (const PositionRange& range : ranges) {
      out_.number(range.first);
      out_.number(range.end - range.first);
    }
  });
}

void TraceRecorder::write_pieces(std::span<const int32_t> tokens) {
  for (const int32_t id : tokens) {
    const auto at = static_cast<size_t>(id);
    if (id < 0 || at >= told_.size() || told_[at] || !piece_) continue;
    told_[at] = true;
    const std::string_view bytes = piece_(id);
    write(Tag::kPiece, [&] {
      out_.number(id);
      out_.text(bytes);
    });
  }
}

void TraceRecorder::committed(int32_t sequence, int32_t n, int64_t blocks,
                              std::span<const int32_t> tokens) noexcept {
  write(Tag::kCommit, [&] {
    out_.number(sequence);
    out_.number(n);
    out_.number(blocks);
    state_.length(sequence) += n;
  });
  write_tokens(sequence, tokens);
}

void TraceRecorder::write_tokens(int32_t sequence, std::span<const int32_t> tokens) noexcept {
  if (!options_.tokens || tokens.empty()) return;
  try {
    write_pieces(tokens);
  } catch (...) {
    is_over_ = true;
  }
  write(Tag::kTokens, [&] {
    const auto n = static_cast<int64_t>(tokens.size());
    out_.number(sequence);
    out_.number(state_.length(sequence) - n);
    out_.number(n);
    for (const int32_t id : tokens) out_.number(id);
  });
}

void TraceRecorder::filled(int32_t sequence, int64_t block, uint64_t hash) noexcept {
  write(Tag::kBlock, [&] {
    out_.number(sequence);
    out_.number(block);
    out_.fixed(hash, 8);
  });
}

void TraceRecorder::found(const PrefixFacts& f, std::span<const int32_t> tokens) noexcept {
  write(Tag::kPrefix, [&] {
    out_.number(f.sequence);
    out_.number(f.from);
    out_.number(f.to);
    out_.number(f.lookups);
    out_.number(f.hits);
    state_.length(f.sequence) = f.to;
  });
  write_tokens(f.sequence, tokens);
}

void TraceRecorder::listed(int32_t sequence, int32_t layer, int64_t first_block,
                           int64_t n_blocks) noexcept {
  write(Tag::kListed, [&] {
    out_.number(sequence);
    out_.number(layer);
    out_.number(first_block);
    out_.number(n_blocks);
  });
}

void TraceRecorder::missed(int32_t sequence, const PrefixMiss& miss, int64_t lookups,
                           int64_t regrets) noexcept {
  write(Tag::kMiss, [&] {
    out_.number(sequence);
    out_.u8(
        static_cast<uint8_t>(static_cast<int>(miss.reason) | (miss.again ? trace::kIsAgain : 0)));
    out_.difference(miss.position);
    out_.difference(miss.differs_at);
    out_.difference(miss.step);
    out_.number(miss.request);
    out_.number(lookups);
    out_.number(regrets);
  });
}

void TraceRecorder::cut(int32_t sequence, int64_t length) noexcept {
  write(Tag::kCut, [&] {
    out_.number(sequence);
    out_.number(length);
    state_.length(sequence) = length;
  });
}

void TraceRecorder::passed(int32_t sequence, int32_t layer, int64_t first, int32_t n) noexcept {
  write(Tag::kPassed, [&] {
    out_.number(sequence);
    out_.number(layer);
    out_.number(first);
    out_.number(n);
  });
}

void TraceRecorder::copied(int32_t sequence, int32_t layer) noexcept {
  write(Tag::kCopy, [&] {
    out_.number(sequence);
    out_.number(layer);
  });
}

void TraceRecorder::merged(int32_t sequence, int32_t layer) noexcept {
  write(Tag::kMerge, [&] {
    out_.number(sequence);
    out_.number(layer);
  });
}

void TraceRecorder::refused(int32_t sequence, int32_t n) noexcept {
  write(Tag::kRefusal, [&] {
    out_.number(sequence);
    out_.number(n);
  });
}

}  // namespace paddock
