// The doctor's drawings: SVG that stands inside a page and takes its colours from there.
#pragma once

#include <paddock/doctor.h>

#include <string>

namespace cli {

/// Pages in use over the steps, and below it the positions of each layer, with marks where windows
/// and rules took something.
std::string occupancy_drawing(const paddock::Diagnosis& d);
/// Layers against positions of the longest text: what became of its blocks.
std::string map_drawing(const paddock::Diagnosis& d);
/// How old blocks were when they left, by reason.
std::string lives_drawing(const paddock::Diagnosis& d);
/// After how many steps a text's block came again; empty: none did.
std::string gaps_drawing(const paddock::Diagnosis& d);
/// Time of steps against the share of the pool in use; empty where the trace has no times.
std::string latency_drawing(const paddock::Diagnosis& d);

}  // namespace cli
