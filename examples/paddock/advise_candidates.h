// What paddock advise tries: settings that fit, with the bytes that an engine of them takes.
#pragma once

#include <paddock/paddock.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cli {

/// What somebody has to get along with.
struct Room {
  std::string model;               // its path
  paddock::EngineOptions options;  // threads, device, precision; context and max_sequences: the
                                   // positions of each user, and how many there are
  std::optional<uint64_t> memory;  // bytes for the pool; none: what is free on the machine
};

/// What a text was like under one candidate beside full.
struct Quality {
  double kl_mean = 0, top1_agreement = 1;
  bool dropped = false;         // whether anything had left: if not, the figures say nothing
  std::optional<int> recalled;  // of the facts that full recalls
};

/// What an engine was like with one sequence.
struct Speed {
  double prefill_rate = 0, decode_rate = 0;  // tokens a second
};

struct Candidate {
  paddock::EngineOptions options;
  std::string change;         // what it has otherwise than its rule's row, such as "-b 128"
  paddock::KvType kv_type{};  // where the options leave it open, the engine's choice
  uint64_t pool_bytes = 0, total_bytes = 0;  // computed
  bool fits = false;
  std::optional<Quality> quality;  // measured
  std::optional<Speed> speed;      // measured
  bool is_on_front = false;
};

/// `options` with the bytes of its engine; nothing where no engine has them.
std::optional<Candidate> plan_candidate(const Room& room, const paddock::EngineOptions& options);

/// "full", and each rule with budgets that fit: the largest, and half of it; where full fits, half
/// and a quarter of what each user has. Most promising first.
std::vector<Candidate> rule_candidates(const Room& room);

/// Other settings under the same rule that fit: element type, block size, batch size.
std::vector<Candidate> setting_candidates(const Room& room, const Candidate& base);

/// Marks those that no other one beats: as small, as quick (within 5 %), as near to full and with
/// as many facts, and better in one. Of those that fit and were measured.
void mark_front(std::vector<Candidate>& candidates);

/// Which to take.
struct Verdict {
  std::optional<size_t> best;  // among the candidates; none: nothing fits, or nothing was measured
  bool nothing_to_change = false;
  std::string why;
};
/// candidates[0] is full.
Verdict judge(const std::vector<Candidate>& candidates);

/// Its settings as options of generate and chat, those that are not the default.
std::string flags_of(const Candidate& candidate);

}  // namespace cli
