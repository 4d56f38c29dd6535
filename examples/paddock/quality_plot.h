// Quality against what was kept, as one SVG file.
#pragma once

#include <string>
#include <vector>

namespace cli {

/// What was measured on what, for the heading.
struct PlotCaption {
  std::string model, text, budget;
};

struct PlotPoint {
  std::string rule;  // a SPEC
  double kept;       // positions that a query met, mean
  double perplexity;
  double kl;  // mean, nats
};

/// Two panels over a logarithmic axis of positions kept: perplexity, with the baseline as a dashed
/// line, and mean KL. Rules that differ in their numbers alone are one series, of one colour,
/// marker and dash; each point bears the numbers of its SPEC, and for who points at it the whole
/// SPEC with what was measured.
std::string quality_plot(const PlotCaption& caption, const PlotPoint& baseline,
                         const std::vector<PlotPoint>& points);

/// The SPEC without the numbers of its arguments: "sink:4+252@original" is of "sink@original".
std::string rule_family(const std::string& spec);
/// Those numbers alone: "4+252".
std::string rule_numbers(const std::string& spec);

}  // namespace cli
