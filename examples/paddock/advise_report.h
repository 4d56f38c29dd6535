// What paddock advise found, as a table and as JSON.
#pragma once

#include <string>
#include <vector>

#include "advise_measure.h"

namespace cli {

struct Advice {
  Room room;
  Sample sample;
  int64_t all_tokens = 0;  // of the text that the sample is the beginning of
  std::vector<Candidate> candidates;
  std::optional<Quality> full;  // the yardstick
  Verdict verdict;
  std::vector<ParallelRow> batches;
  int batch_prompt = 0;
  bool out_of_time = false;
  std::string text_name;  // the file's
  bool is_chat = false;
  double seconds = 0;  // that measuring was given
  int users() const { return room.options.max_sequences; }
};

std::string advice_text(const Advice& advice);
Json advice_json(const Advice& advice);

}  // namespace cli
