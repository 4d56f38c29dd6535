// Writes down what the cache and the engine tell, as docs/trace-format.md says, into memory;
// flush() gives what has come together to the host's sink, as one frame.
#pragma once

#include <chrono>
#include <functional>
#include <string_view>
#include <vector>

#include "trace/format.h"
#include "trace/observer.h"

namespace paddock {

class TraceRecorder final : public CacheObserver {
 public:
  /// What a token id stands for.
  using Piece = std::function<std::string_view(int32_t id)>;
  /// `piece`: with KvTrace::tokens; null: nobody knows.
  TraceRecorder(const KvTrace& options, const TraceHeader& header, Piece piece);
  /// Writes the end.
  ~TraceRecorder() override;

  /// Hands over what has come together, once there are rules: of an engine that could not be made
  /// nobody hears. The host's function is called. False if it threw now: nothing is recorded any
  /// more.
  bool flush() noexcept;

  /// Number 0 first, then the others.
  void rules(const TraceRules& rules) noexcept;
  /// Without times it is left out.
  void memory(const TraceMemory& memory) noexcept;
  void requested(const TraceRequest& request) noexcept;
  void finished(const TraceFinish& finish) noexcept;
  /// Whose step it is; told on where it has changed.
  void runs(int32_t sequence, int64_t request, int64_t session) noexcept;
  void step_begins() noexcept;
  void step_ends(bool completed) noexcept;

  void opened(int32_t sequence, bool is_pin, int32_t rules) noexcept override;
  void closed(int32_t sequence, RemovalReason reason) noexcept override;
  void forked(int32_t from, int32_t to) noexcept override;
  void protects(int32_t sequence, std::span<const PositionRange> ranges) noexcept override;
  void committed(int32_t sequence, int32_t n, int64_t blocks,
                 std::span<const int32_t> tokens) noexcept override;
  void filled(int32_t sequence, int64_t block, uint64_t hash) noexcept override;
  void found(const PrefixFacts& facts, std::span<const int32_t> tokens) noexcept override;
  void listed(int32_t sequence, int32_t layer, int64_t first_block,
              int64_t n_blocks) noexcept override;
  void missed(int32_t sequence, const PrefixMiss& miss, int64_t lookups,
              int64_t regrets) noexcept override;
  void cut(int32_t sequence, int64_t length) noexcept override;
  void passed(int32_t sequence, int32_t layer, int64_t first, int32_t n) noexcept override;
  void copied(int32_t sequence, int32_t layer) noexcept override;
  void merged(int32_t sequence, int32_t layer) noexcept override;
  void refused(int32_t sequence, int32_t n) noexcept override;
  void removed(const RemovalEvent& event) noexcept override;
  void decided(const DecisionFacts& facts) noexcept override;
  bool wants_candidates() const noexcept override { return options_.scores; }
  void chose_among(std::span<const CandidateFacts> candidates) noexcept override;
  void budget_changed(const KvBudgetChange& change) noexcept override;
  void preempted(const KvPreemption& preemption) noexcept override;
  void limited(int64_t pages) noexcept override;
  void violated(std::string_view what) noexcept override;
  void fell_short() noexcept override;
  void ticked(int64_t pages_free, int64_t pages_cached) noexcept override;

 private:
  /// Writes one record; where there is no memory for it, nothing is recorded any more.
  template <typename Fn>
  void write(trace::Tag tag, const Fn& fields) noexcept;
  void write_header(const TraceHeader& header);
  /// Tokens of a sequence that now ends with them.
  void write_tokens(int32_t sequence, std::span<const int32_t> tokens) noexcept;
  void write_pieces(std::span<const int32_t> tokens);
  /// Microseconds since the last record that has a time.
  int64_t tick_time();

  KvTrace options_;
  Piece piece_;
  bool is_over_ = false;
  bool is_begun_ = false;  // the file's first bytes are with the host
  uint64_t frame_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool is_flushing_ = false;  // the sink is called: what it asks of the engine is told next time
  trace::Writer out_, spare_;
  trace::State state_;
  struct Owner {
    int64_t request = -1, session = -1;
  };
  std::vector<Owner> owners_;  // of sequences
  std::vector<bool> told_;     // [vocab_size] which pieces
  // [n_rules][n_layers] schedules of the rules; empty: not told yet
  std::vector<std::vector<TrimSchedule>> plain_;
};

template <typename Fn>
void TraceRecorder::write(trace::Tag tag, const Fn& fields) noexcept {
  if (is_over_) return;
  const size_t before = out_.size();
  try {
    out_.u8(static_cast<uint8_t>(tag));
    fields();
  } catch (...) {  // no memory: what a reader would take up from here on is not known
    out_.cut(before);
    is_over_ = true;
  }
}

}  // namespace paddock
