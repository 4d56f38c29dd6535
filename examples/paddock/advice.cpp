#include "advice.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>

#include "common.h"

namespace cli {
namespace {

/// What a unit stands for, 0 if it is none. Case does not matter.
uint64_t scale_of(std::string unit) {
  for (char& c : unit) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (unit.empty() || unit == "B") return 1;
  const size_t power = std::string("KMGT").find(unit[0]) + 1;  // 0: none of them
  if (power == 0) return 0;
  const std::string rest = unit.substr(1);
  if (!rest.empty() && rest != "I" && rest != "IB" && rest != "B") return 0;
  uint64_t scale = 1;
  for (size_t i = 0; i < power; ++i) scale *= rest == "B" ? 1000 : 1024;
  return scale;
}

/// Bytes, above 0; nothing if it is no size.
std::optional<uint64_t> size_of(const std::string& text) {
  const char* last = text.data() + text.size();
  uint64_t whole = 0;
  const auto [after, whole_error] = std::from_chars(text.data(), last, whole);
  const char* end = after;
  double fraction = 0;
  bool ok = whole_error == std::errc();
  if (ok && end != last && *end == '.') {
    const auto [after_fraction, error] =
        std::from_chars(end, last, fraction, std::chars_format::fixed);
    ok = error == std::errc() && after_fraction > end + 1;
    end = after_fraction;
  }
  const uint64_t scale = scale_of(std::string(end, last));
  // A part of a byte is none: "1.5" is refused, "1.5K" is not.
  ok = ok && scale > 0 && (fraction == 0 || scale > 1);
  const auto more = static_cast<uint64_t>(fraction * static_cast<double>(scale));
  uint64_t bytes = 0;
  if (ok && !__builtin_mul_overflow(whole, scale, &bytes) &&
      !__builtin_add_overflow(bytes, more, &bytes) && bytes > 0) {
    return bytes;
  }
  return std::nullopt;
}

}  // namespace

uint64_t parse_size(const char* option, const std::string& text, const char* or_else) {
  if (const std::optional<uint64_t> bytes = size_of(text)) return *bytes;
  throw UsageError(
      fmt::format("{} {}: must be a size such as 256MiB, 1.5GiB or 4096{}", option, text, or_else));
}

std::string size_text(uint64_t bytes) {
  const auto in = [&](int shift, const char* unit) {
    return fmt::format("{}{}", (bytes >> shift) + ((bytes & ((1ULL << shift) - 1)) != 0 ? 1 : 0),
                       unit);
  };
  if (bytes >= 8ULL << 30) return in(30, "GiB");
  if (bytes >= 8ULL << 20) return in(20, "MiB");
  if (bytes >= 8ULL << 10) return in(10, "KiB");
  return std::to_string(bytes);
}

double parse_share(const std::string& text) {
  double percent = 0;
  const char* last = text.data() + text.size() - 1;
  const auto [end, error] = std::from_chars(text.data(), last, percent);
  if (error != std::errc() || end != last || !(percent > 0 && percent <= 100)) {
    throw UsageError(fmt::format("--kv-budget {}: must be above 0% and at most 100%", text));
  }
  return percent / 100;
}

paddock::SettingNames option_names(const std::string& policy, const std::string& sequences) {
  return {.budget = "--kv-budget",
          .share = "--kv-budget",
          .policy = policy,
          .others = "for lines with a kv_policy",
          .context = "-c",
          .batch = "-b",
          .sequences = sequences,
          .size = size_text};
}

std::string describe(const paddock::Error& error, const std::string& policy,
                     const std::string& sequences) {
  std::string text(error.problem());
  if (!error.proposals().empty()) {
    text += "; " + paddock::to_text(error.proposals(), option_names(policy, sequences));
  }
  return text;
}

bool is_refusal(const paddock::Error& error) {
  return error.code() == paddock::ErrorCode::kInvalidArgument ||
         error.code() == paddock::ErrorCode::kOutOfMemory;
}

std::string lack_of_room(const paddock::GenerateResult& result, const paddock::Engine& engine,
                         const std::string& policy) {
  std::string text;
  if (result.finish_reason == paddock::FinishReason::kKvFull) {
    text = fmt::format("the KV cache of {} is full", size_text(engine.options().kv.budget_bytes));
    if (!result.error.empty()) text += ": " + result.error;
  } else if (result.finish_reason == paddock::FinishReason::kContext) {
    text = fmt::format("the context is full, {} positions", engine.options().context);
  }
  if (text.empty() || result.proposals.empty()) return text;
  return text + "; " + paddock::to_text(result.proposals, option_names(policy));
}

}  // namespace cli
