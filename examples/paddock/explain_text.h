// Why something left the cache, in words.
#pragma once

#include <paddock/explain.h>

#include <cstdint>
#include <string>

namespace cli {

/// Where it lay and what became of it, in a model of so many layers.
std::string span_text(const paddock::ExplainedSpan& span, int32_t n_layers);
/// A table of what left each layer.
std::string summary_text(const paddock::Explanation& e);

}  // namespace cli
