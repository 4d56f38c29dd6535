#include "paddock/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace paddock {

const char* error_code_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kBadFile:
      return "bad_file";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kOutOfMemory:
      return "out_of_memory";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kDevice:
      return "device";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "unknown";
}

namespace {

std::string describe(const Proposal& p, const SettingNames& names) {
  const char* verb = p.lowers ? "lower" : "raise";
  std::vector<std::string> parts;
  if (p.context == 0) parts.push_back(fmt::format("drop {}", names.context));
  if (p.context.value_or(0) > 0) {
    parts.push_back(fmt::format("{} {} to {}", verb, names.context, *p.context));
  }
  const auto size = [&](uint64_t bytes) {
    return names.size ? names.size(bytes) : std::to_string(bytes);
  };
  if (p.budget_bytes) {
    parts.push_back(fmt::format("{} {} to {}", verb, names.budget, size(*p.budget_bytes)));
  }
  if (p.max_budget_bytes) {
    parts.push_back(fmt::format("{} {} to {}", verb, names.max_budget, size(*p.max_budget_bytes)));
  }
  if (p.budget_share) {
    // Written like a size: as a share of one, or as the tool does in percent.
    const std::string share = names.size ? fmt::format("{:.4g}%", *p.budget_share * 100)
                                         : fmt::format("{:.4g}", *p.budget_share);
    parts.push_back(fmt::format("raise {} to {}", names.share, share));
  }
  if (p.batch_size) parts.push_back(fmt::format("lower {} to {}", names.batch, *p.batch_size));
  if (p.max_sequences) {
    parts.push_back(fmt::format("{} {} to {}", verb, names.sequences, *p.max_sequences));
  }
  const std::string text = fmt::format("{}", fmt::join(parts, " and "));
  if (!p.policy && !p.other_policies) return text;
  const std::string rules =
      p.policy ? fmt::format("{} {}", names.policy, *p.policy)
               : fmt::format("{} {}", names.others, fmt::join(*p.other_policies, " "));
  return text.empty() ? rules + " fits now" : fmt::format("{} with {}", text, rules);
}

std::string joined(const std::string& problem, std::span<const Proposal> proposals) {
  return proposals.empty() ? problem : problem + "; " + to_text(proposals);
}

}  // namespace

std::string to_text(std::span<const Proposal> proposals, const SettingNames& names) {
  std::string text;
  for (const Proposal& proposal : proposals) {
    if (!text.empty()) text += ", or ";
    text += describe(proposal, names);
  }
  return text;
}

Error::Error(ErrorCode code, const std::string& problem, std::vector<Proposal> proposals)
    : std::runtime_error(joined(problem, proposals)), code_(code), problem_size_(problem.size()) {
  if (proposals.empty()) return;
  proposals_ = std::make_shared<const std::vector<Proposal>>(std::move(proposals));
}

}  // namespace paddock
