#include "keep.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "command_line.h"

namespace cli {

KeepRule KeepRule::parse(const std::string& spec) {
  if (spec.empty()) return {};
  constexpr std::pair<std::string_view, Kind> kKinds[] = {
      {"turns:", Kind::kTurns},
      {"drop-irrelevant:", Kind::kDropIrrelevant},
      {"summarise:", Kind::kSummarise}};
  for (const auto& [name, kind] : kKinds) {
    if (!spec.starts_with(name)) continue;
    KeepRule rule{kind, 0};
    const char* end = spec.data() + spec.size();
    const auto [last, error] = std::from_chars(spec.data() + name.size(), end, rule.turns);
    if (error != std::errc() || last != end || rule.turns < 2) {
      throw UsageError(fmt::format("--keep {}: how many turns stay must be 2 or more", spec));
    }
    return rule;
  }
  throw UsageError(
      fmt::format("--keep {}: must be turns:N, drop-irrelevant:N or summarise:N", spec));
}

void AttentionMeter::begin(const paddock::Engine& engine) {
  before_.clear();
  for (int32_t layer = 0; layer < engine.model().info().n_layers; ++layer) {
    for (const paddock::KvBlock& block : engine.kv_blocks(layer)) {
      before_[{layer, block.first_position}] = block.mass;
    }
  }
}

std::vector<double> AttentionMeter::shares(const paddock::Engine& engine,
                                           const std::vector<int64_t>& starts) {
  std::vector<double> shares(starts.size(), 0);
  double all = 0;
  for (int32_t layer = 0; layer < engine.model().info().n_layers; ++layer) {
    for (const paddock::KvBlock& block : engine.kv_blocks(layer)) {
      const auto known = before_.find({layer, block.first_position});
      const double given = block.mass - (known == before_.end() ? 0 : known->second);
      all += given;
      // Where turns meet in a block each has the part of its positions.
      for (int32_t i = 0; i < block.n_tokens; ++i) {
        const auto next = std::upper_bound(starts.begin(), starts.end(), block.first_position + i);
        if (next == starts.begin()) continue;
        shares[static_cast<size_t>(next - starts.begin()) - 1] += given / block.n_tokens;
      }
    }
  }
  if (!(all > 0)) return {};
  for (double& share : shares) share /= all;
  return shares;
}

}  // namespace cli
