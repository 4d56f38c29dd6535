#include "kept_mass.h"

#include <algorithm>
#include <functional>

namespace cli {

std::vector<InView> in_view(const paddock::Engine& engine, int64_t length) {
  const auto n_layers = static_cast<size_t>(engine.model().info().n_layers);
  std::vector<InView> layers(n_layers, InView(static_cast<size_t>(length), false));
  const paddock::KvStats stats = engine.kv_stats();
  for (size_t layer = 0; layer < n_layers; ++layer) {
    // Tables list whole blocks until nothing of them can be seen.
    const auto id = static_cast<int32_t>(layer);
    const paddock::TokenVisibility rule =
        paddock::make_policy(stats.layers[layer].policy)->visibility(id);
    for (const paddock::KvBlock& block : engine.kv_blocks(id)) {
      for (int64_t p = block.first_position; p < block.first_position + block.n_tokens; ++p) {
        layers[layer][static_cast<size_t>(p)] = p < rule.sinks || p > length - rule.window;
      }
    }
  }
  return layers;
}

PositionMass position_mass(const paddock::Engine& engine) {
  PositionMass layers(static_cast<size_t>(engine.model().info().n_layers));
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (const paddock::KvBlock& block : engine.kv_blocks(static_cast<int32_t>(layer))) {
      layers[layer].push_back(block.mass);
    }
  }
  return layers;
}

KeptMass& KeptMass::operator+=(const KeptMass& other) {
  kept += other.kept;
  oracle += other.oracle;
  all += other.all;
  return *this;
}

KeptMass kept_mass(const InView& view, const std::vector<double>& then,
                   const std::vector<double>& end) {
  KeptMass mass;
  std::vector<double> given;
  int64_t n_kept = 0;
  for (size_t i = 0; i < view.size(); ++i) {
    given.push_back(end[i] - then[i]);
    mass.all += given.back();
    if (!view[i]) continue;
    mass.kept += given.back();
    ++n_kept;
  }
  std::sort(given.begin(), given.end(), std::greater<>());
  for (int64_t i = 0; i < n_kept; ++i) mass.oracle += given[static_cast<size_t>(i)];
  return mass;
}

}  // namespace cli
