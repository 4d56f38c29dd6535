#pragma once
// What paddock perplexity prints of one measured text.

#include <paddock/paddock.h>

#include <optional>
#include <string>
#include <vector>

#include "common.h"

namespace cli {

/// What was measured, ready to print.
struct QualityOutcome {
  paddock::QualityReport quality;
  std::optional<paddock::RecallReport> recall;
  std::vector<paddock::PlantedFact> facts;
  bool sweep = false;  // a table of contenders; otherwise at most one
};

Json to_json(const QualityOutcome& outcome);
/// The sweep's table in Markdown, or lines.
std::string to_text(const QualityOutcome& outcome);

}  // namespace cli
