// Sizes, and what a refusal proposes, in the tool's own words.
#pragma once

#include <paddock/paddock.h>

#include <cstdint>
#include <string>

namespace cli {

/// "1.5GiB", "256M", "100MB", "4096" in bytes: K, M, G, T and Ki, KiB, ... are powers of 1024; KB,
/// MB, ... powers of 1000. Anything else is wrong usage of `option`; `or_else`: what else it takes.
uint64_t parse_size(const char* option, const std::string& text, const char* or_else = "");
/// As parse_size() takes it: the same, or a little more where that is shorter.
std::string size_text(uint64_t bytes);
/// "80%" as 0.8.
double parse_share(const std::string& text);

/// The tool's options. `policy`: how a rule is set here; `sequences`: how their number is.
paddock::SettingNames option_names(const std::string& policy = "--kv-policy",
                                   const std::string& sequences = "--parallel");

/// The problem, and what works, by the names of the tool's options.
std::string describe(const paddock::Error& error, const std::string& policy = "--kv-policy",
                     const std::string& sequences = "--parallel");

/// Whether what was asked for is refused, or has no room: who asked may ask for something else.
bool is_refusal(const paddock::Error& error);

/// Why an answer was cut off and what would have let it go on; empty where it was not for lack of
/// room.
std::string lack_of_room(const paddock::GenerateResult& result, const paddock::Engine& engine,
                         const std::string& policy = "--kv-policy");

}  // namespace cli
