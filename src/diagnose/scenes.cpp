// Made-up scenes.
#include "diagnose/scenes.h"

#include <algorithm>
#include <cmath>

#include "core/checked.h"
#include "core/mix.h"

namespace paddock {
namespace {

constexpr int64_t kMostBlocks = 256;  // of one scene

double measure(Measures measures, size_t i, size_t n, Dice& dice) {
  switch (measures) {
    case Measures::kRandom:
      return std::exp(10 * unit_interval(dice()) - 5);
    case Measures::kEqual:
      return 1;
    case Measures::kZero:
      return 0;
    case Measures::kAscending:
      return static_cast<double>(i + 1);
    case Measures::kDescending:
      return static_cast<double>(n - i);
    case Measures::kOneHot:
      return i == n / 2 ? 100 : 0;
    case Measures::kHuge:
      return 1e9 * unit_interval(dice());
    case Measures::kTiny:
      return 1e-9 * unit_interval(dice());
  }
  return 0;
}

/// Positions that decisions of this rule find resident, more or less.
int64_t usual_tokens(const LayerRule& rule) {
  const TrimSchedule& s = rule.schedule;
  return int64_t{s.budget} + (s.every > 0 ? s.every : s.budget);
}

}  // namespace

Scene make_scene(const LayerRule& rule, const ConformanceOptions& options, int32_t layer,
                 int32_t block_size, int32_t n_blocks, Dice& dice) {
  Scene scene;
  scene.head.layer = layer;
  scene.head.n_layers = options.n_layers;
  scene.head.n_heads = options.n_heads;
  scene.head.block_size = block_size;
  scene.blocks.resize(n_blocks);
  int64_t position = 0;
  for (BlockInfo& block : scene.blocks) {
    if (dice() % 4 == 0) position += static_cast<int64_t>(dice() % 5) * block_size;
    block.first_position = block.last_used = position;
    block.n_tokens = block_size;
    position += block_size;
  }
  BlockInfo& newest = scene.blocks.back();
  if (dice() % 2 == 0) newest.n_tokens = static_cast<int32_t>(1 + dice() % block_size);
  scene.head.length = newest.first_position + newest.n_tokens;
  for (BlockInfo& block : scene.blocks) {
    block.is_protected = is_protected(rule.schedule, block.first_position,
                                      block.first_position + block.n_tokens, scene.head.length);
    scene.head.tokens += block.n_tokens;
  }
  scene.n_tokens = block_size;
  return scene;
}

void set_measures(Scene& scene, PolicyNeeds needs, Measures measures, Dice& dice) {
  const size_t n = scene.blocks.size();
  const bool same_use = measures == Measures::kEqual || measures == Measures::kZero;
  for (size_t i = 0; i < n; ++i) {
    BlockInfo& block = scene.blocks[i];
    if (needs.attention) {
      block.mass = measure(measures, i, n, dice);
      block.recent_mass = block.mass * (same_use ? 1 : unit_interval(dice()));
      const auto later = static_cast<uint64_t>(scene.head.length - block.first_position);
      block.last_used = same_use ? scene.head.length - 1
                                 : block.first_position + static_cast<int64_t>(dice() % later);
    }
    if (needs.key_norms) block.key_norm = measure(measures, i, n, dice);
  }
}

std::vector<Scene> make_scenes(const std::vector<LayerRule>& rules,
                               const ConformanceOptions& options, int32_t block_size, Dice& dice) {
  std::vector<Scene> scenes;
  for (const size_t layer : {size_t{0}, rules.size() / 2, rules.size() - 1}) {
    const LayerRule& rule = rules[layer];
    if (!rule.trims()) continue;
    const auto usual = static_cast<int64_t>(ceil_div(usual_tokens(rule), block_size)) + 1;
    for (const int64_t blocks : {int64_t{2}, int64_t{3}, usual, 2 * usual}) {
      for (const Measures measures : kAllMeasures) {
        Scene scene = make_scene(rule, options, static_cast<int32_t>(layer), block_size,
                                 static_cast<int32_t>(std::min(blocks, kMostBlocks)), dice);
        set_measures(scene, rule.needs, measures, dice);
        const int64_t most = scene.unprotected_tokens();
        if (most == 0) continue;  // no decision falls due then
        for (const int64_t n_tokens : {int64_t{1}, most / 2, most}) {
          if (n_tokens == 0) continue;
          scene.n_tokens = n_tokens;
          scenes.push_back(scene);
        }
      }
    }
  }
  return scenes;
}

}  // namespace paddock
