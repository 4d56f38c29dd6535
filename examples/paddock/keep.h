// Which turns of a conversation stay when it grows: chat --keep.
#pragma once

#include <paddock/paddock.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cli {

/// "turns:N", "drop-irrelevant:N" or "summarise:N": no more than N turns stay.
struct KeepRule {
  enum class Kind { kAll, kTurns, kDropIrrelevant, kSummarise } kind = Kind::kAll;
  int turns = 0;

  /// UsageError for anything else. Empty: all stay.
  static KeepRule parse(const std::string& spec);
};

/// What each block has received in attention, over all layers: looked at before and after a turn,
/// it says what the turn's queries attended to.
class AttentionMeter {
 public:
  /// As it is now: what comes is counted from here.
  void begin(const paddock::Engine& engine);
  /// For each of the turns that begin at `starts`, ascending, its part of what was given since,
  /// 0 to 1. Empty where no layer's rule has attention measured.
  std::vector<double> shares(const paddock::Engine& engine, const std::vector<int64_t>& starts);

 private:
  using Place = std::pair<int32_t, int64_t>;  // layer, first position
  std::map<Place, double> before_;
};

}  // namespace cli
