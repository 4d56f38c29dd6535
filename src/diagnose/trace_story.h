// A trace taken together: which texts there were, whose, what they lost, and where others begin as
// they do.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "paddock/explain.h"

namespace paddock {

class TraceStory {
 public:
  struct Loss {
    TraceRemoval removal;
    double seconds = 0;
    int64_t request = 0;
    TrimSchedule schedule;
    bool by_fall = false;
    int64_t needed_by = 0;
  };
  struct FullBlock {
    uint64_t hash = 0;
    bool is_found = false;  // among kept ones; else it was computed
  };
  /// Whom a text serves from a length on.
  struct Owner {
    int64_t length = 0, request = 0, session = 0;
  };
  /// What a sequence had from its opening on; one that was parked goes on when it is read again.
  struct Text {
    int32_t sequence = 0;
    bool is_pin = false, is_parked = false, has_ended = false;
    bool is_part = false;  // read again: what it was told went into the text that it goes on with
    int32_t times_parked = 0;
    int64_t length = 0, longest = 0;
    std::vector<Owner> owners;
    std::vector<int32_t> ids;                          // -1: not told
    std::vector<std::pair<int64_t, int64_t>> written;  // up to a length in a step
    std::vector<FullBlock> blocks;
    int64_t found = 0;  // positions from kept blocks, since it was opened
    std::vector<Loss> losses;
    struct Protected {
      int64_t step = 0;
      std::vector<TraceProtection::Range> ranges;
    };
    std::vector<Protected> protections;          // by the host: each holds until the next
    std::set<std::pair<int32_t, int64_t>> lost;  // layers and positions of them
    std::vector<std::set<int64_t>> had;  // [n_layers] blocks that were there, by first positions
  };
  struct Request {
    int64_t session = 0, turn = 1, begin = 0, prompt_tokens = 0, made_tokens = 0;
  };

  void take(const TraceRecord& record);
  /// The turn of a request in its session, from 1; 0 of none.
  int64_t turn_of(int64_t request) const {
    const auto at = requests.find(request);
    return at == requests.end() ? 0 : at->second.turn;
  }

  TraceHeader header;
  TraceRules rules;
  std::vector<Text> texts;
  std::map<int64_t, Request> requests;
  std::map<int32_t, std::string> pieces;
  std::vector<ExplainedLayer> layers;     // by layer and reason
  std::map<uint64_t, int64_t> reclaimed;  // by text: in how many layers

 private:
  Text& at(int32_t sequence);
  /// The part of a step's records that is about texts.
  void take_text(const TraceRecord& record);
  void take_removal(const TraceRecord& record, const TraceRemoval& removal);
  void take_run(const TraceRun& run, int64_t step);
  void grow(Text& text, int64_t length, int64_t step);
  void list(Text& text, size_t layer, int64_t first, int64_t end);
  void cut(Text& text, int64_t length);

  std::map<int32_t, size_t> open_;    // texts, by sequence
  std::map<int32_t, int64_t> falls_;  // by sequence: for whom its budget fell, in this step
  std::map<int64_t, int64_t> turns_;  // of sessions, so far
  TraceDecision decision_;
};

}  // namespace paddock
