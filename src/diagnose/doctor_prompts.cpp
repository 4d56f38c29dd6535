// Whether prompts would share their beginnings, were it not for something that stands early in
// them.
#include <algorithm>

#include "diagnose/doctor_causes.h"

namespace paddock {
namespace {

constexpr size_t kMostPairs = 128;
constexpr double kEarly = 0.25;        // of a prompt: where it begins to differ
constexpr double kLongPart = 0.5;      // of the shorter prompt: an equal part
constexpr double kAlikeLength = 0.05;  // by which lengths may differ, where nothing else is known

using Ids = std::vector<int32_t>;

size_t common_beginning(const Ids& a, const Ids& b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
}

/// Tokens of the longest run that is in both, wherever.
size_t longest_run(const Ids& a, const Ids& b) {
  std::vector<size_t> row(b.size() + 1), before(b.size() + 1);
  size_t longest = 0;
  for (const int32_t id : a) {
    std::swap(row, before);
    for (size_t j = 0; j < b.size(); ++j) {
      row[j + 1] = id == b[j] ? before[j] + 1 : 0;
      longest = std::max(longest, row[j + 1]);
    }
  }
  return longest;
}

bool begins(const RunRecord::Request& r) { return r.begin == 0; }

/// By tokens.
BrokenPrefixes compare_ids(const RunRecord& run) {
  BrokenPrefixes found;
  found.by_tokens = true;
  const RunRecord::Request* last = nullptr;
  for (const RunRecord::Request& r : run.requests) {
    const auto least = static_cast<size_t>(4 * run.header.block_size);
    if (!begins(r) || r.ids.size() < least) continue;
    if (last != nullptr && static_cast<size_t>(found.compared) < kMostPairs) {
      ++found.compared;
      const double shorter = static_cast<double>(std::min(last->ids.size(), r.ids.size()));
      const size_t same = common_beginning(last->ids, r.ids);
      if (static_cast<double>(same) < kEarly * shorter) {
        const size_t part = longest_run(last->ids, r.ids);
        if (static_cast<double>(part) >= kLongPart * shorter) {
          ++found.broken;
          found.equal_tokens += static_cast<int64_t>(part);
          found.differs_at = static_cast<int64_t>(same);
        }
      }
    }
    last = &r;
  }
  if (found.broken > 0) found.equal_tokens /= found.broken;
  return found;
}

/// Without tokens: prompts of like length that are known up to an early position.
BrokenPrefixes compare_misses(const RunRecord& run) {
  BrokenPrefixes found;
  const RunRecord::Request* last = nullptr;
  for (const RunRecord::Request& r : run.requests) {
    if (!begins(r) || r.prompt_tokens < 4 * run.header.block_size) continue;
    const RunRecord::Request* before = std::exchange(last, &r);
    if (before == nullptr) continue;
    ++found.compared;
    const auto miss = std::find_if(run.misses.begin(), run.misses.end(), [&](const auto& m) {
      return m.request == r.request && m.miss.reason == MissReason::kDiffers;
    });
    if (miss == run.misses.end()) continue;
    const auto length = static_cast<double>(r.prompt_tokens);
    const auto apart = static_cast<double>(std::abs(r.prompt_tokens - before->prompt_tokens));
    if (apart > kAlikeLength * length ||
        static_cast<double>(miss->miss.differs_at) >= kEarly * length) {
      continue;
    }
    ++found.broken;
    found.differs_at = miss->miss.differs_at;
  }
  return found;
}

}  // namespace

BrokenPrefixes find_broken_prefixes(const RunRecord& run) {
  return run.header.has_tokens ? compare_ids(run) : compare_misses(run);
}

}  // namespace paddock
