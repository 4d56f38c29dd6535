// Takes the records of a trace's frames apart.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "trace/format.h"

namespace paddock::trace {

/// Most sequences, pins included, that a trace may number.
inline constexpr uint64_t kMostSequences = 1 << 20;

/// Takes a frame's payload apart.
class Decoder {
 public:
  Decoder(std::string_view bytes, uint64_t at, const std::string& name)
      : bytes_(bytes), at_(at), name_(name) {}
  bool is_done() const { return next_ == bytes_.size(); }

  [[noreturn]] void refuse(std::string_view why) const {
    fail(ErrorCode::kBadFile,
         "'{}': byte {}: {}; it was not written by this version of Paddock: record it again", name_,
         at_ + next_, why);
  }
  uint8_t u8() {
    if (is_done()) refuse("a record ends too early");
    return static_cast<uint8_t>(bytes_[next_++]);
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = u8();
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    refuse("a number is longer than 64 bits");
  }
  int64_t number() { return static_cast<int64_t>(varint()); }
  int64_t difference() { return unzigzag(varint()); }
  int32_t small() { return static_cast<int32_t>(below(uint64_t{kUnlimited} + 1, "a number")); }
  uint64_t fixed(int n_bytes) {
    uint64_t value = 0;
    for (int i = 0; i < n_bytes; ++i) value |= static_cast<uint64_t>(u8()) << (8 * i);
    return value;
  }
  double real() { return std::bit_cast<double>(fixed(8)); }
  std::string text() {
    const uint64_t n = varint();
    if (n > bytes_.size() - next_) refuse("a text is longer than its record");
    next_ += n;
    return std::string(bytes_.substr(next_ - n, n));
  }
  TrimSchedule schedule() {
    TrimSchedule s;
    s.budget = small();
    s.every = small();
    s.observe = small();
    s.keep_first = small();
    s.keep_newest = small();
    s.newest_divisor = small();
    return s;
  }
  uint64_t below(uint64_t limit, const char* what) {
    const uint64_t value = varint();
    if (value >= limit) refuse(fmt::format("{} is {}, and must be below {}", what, value, limit));
    return value;
  }
  /// Of things that take a byte or more each.
  size_t count() { return below(bytes_.size() - next_ + 1, "a number of parts"); }
  int32_t sequence() { return static_cast<int32_t>(below(kMostSequences, "a sequence")); }

 private:
  std::string_view bytes_;
  uint64_t at_, next_ = 0;
  const std::string& name_;
};

class Reader {
 public:
  Reader(const std::string& name, const std::function<void(const TraceRecord&)>& on_record)
      : name_(name), on_record_(on_record) {}

  void read_frame(std::string_view payload, uint64_t at) {
    Decoder in(payload, at, name_);
    while (!in.is_done()) {
      if (is_ended_) in.refuse("a record follows the end");
      read_record(in);
    }
  }
  int64_t records() const { return records_; }
  bool is_ended() const { return is_ended_; }

 private:
  template <typename What>
  void give(What what) {
    record_.step = state_.steps;
    record_.seconds = static_cast<double>(state_.micros) * 1e-6;
    record_.what = std::move(what);
    ++records_;
    on_record_(record_);
  }
  int32_t layer(Decoder& in) {
    return static_cast<int32_t>(in.below(static_cast<uint64_t>(header_.n_layers), "a layer"));
  }
  /// Of those by that number; null: they were not told.
  const TraceRules::Layer* rule(int32_t rules, int32_t layer) const {
    if (static_cast<size_t>(rules) >= rules_.size()) return nullptr;
    return &rules_[static_cast<size_t>(rules)].layers[static_cast<size_t>(layer)];
  }
  void take_time(Decoder& in) { state_.micros = plus(state_.micros, in.number()); }

  void read_record(Decoder& in);
  bool read_steps(Tag tag, Decoder& in);
  bool read_sequences(Tag tag, Decoder& in);
  bool read_texts(Tag tag, Decoder& in);
  bool read_prefixes(Tag tag, Decoder& in);
  bool read_leaving(Tag tag, Decoder& in);
  void read_header(Decoder& in);
  void read_rules(Decoder& in);
  void read_decision(Decoder& in);
  void read_candidates(Decoder& in);
  void read_removal(Decoder& in);
  void read_budget(Decoder& in);
  void read_preemption(Decoder& in);

  const std::string& name_;
  const std::function<void(const TraceRecord&)>& on_record_;
  State state_;
  TraceHeader header_;
  bool has_header_ = false, is_ended_ = false;
  std::vector<TraceRules> rules_;  // by their numbers
  TraceDecision decision_;
  TraceRecord record_;
  int64_t records_ = 0;
};

}  // namespace paddock::trace
