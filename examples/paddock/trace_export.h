// A trace in forms that other programs read.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace cli {

using WriteText = std::function<void(std::string_view)>;

/// Each record as a line of JSON.
void write_trace_lines(const std::string& path, const WriteText& write);
/// Chrome's trace events, which Perfetto opens: steps and requests as bars, pages and positions as
/// counters, what left as instants.
void write_trace_timeline(const std::string& path, const WriteText& write);
/// Requests as lines of JSON, as in Mooncake's traces: timestamp, input_length, output_length,
/// hash_ids, of full blocks. Returns the bytes of a block in all layers.
uint64_t write_trace_requests(const std::string& path, const WriteText& write);

}  // namespace cli
