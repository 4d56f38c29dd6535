// What the doctor proposes, tried: a text once more under the run's own settings and under each
// that a cause proposes, measured.
#pragma once

#include <paddock/doctor.h>

#include <optional>
#include <string>
#include <vector>

#include "common.h"

namespace cli {

/// What to run with.
struct RerunArgs {
  EngineArgs engine;  // of which model, threads, device, precision and isa are asked for
  std::string file;

  bool is_asked() const { return !engine.model.empty() || !file.empty(); }
};

/// One setting, measured.
struct Rerun {
  std::string flag;                // as it would be typed; empty: as the run was
  std::string refused;             // why it could not be run; else empty, and:
  double prefill_rate = 0;         // tokens a second
  double decode_rate = 0;          // likewise, of the last 16 tokens
  int64_t pages = 0;               // most that were in use
  uint64_t page_bytes = 0;         // of each
  int64_t left = 0;                // blocks that windows and rules took
  double perplexity = 0;           // of what follows the prompt, two thirds of the text
  std::optional<double> kl;        // mean there beside full; none: of another model than the run's
  std::optional<double> top1;      // likewise
  std::vector<std::string> found;  // causes that its own trace shows
};

struct Reruns {
  std::string model, text;
  int64_t tokens = 0;
  double full_perplexity = 0;  // under full, with as much memory as that takes
  std::vector<Rerun> rows;     // the run's own settings first
};

/// Error kInvalidArgument where the model is not the one that the trace is of.
Reruns try_proposals(const RerunArgs& args, const paddock::Diagnosis& diagnosis);

std::string reruns_text(const Reruns& reruns);
Json reruns_json(const Reruns& reruns);
/// A table of the page.
std::string reruns_html(const Reruns& reruns);

}  // namespace cli
