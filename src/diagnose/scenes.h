// Questions for the conformance suite: some from a run of the real cache manager under made-up
// attention, some made up altogether.
#pragma once

#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "diagnose/findings.h"
#include "kv/layer_rule.h"

namespace paddock {

using Dice = std::mt19937_64;

/// What a run of the cache showed.
struct CacheRun {
  std::vector<Scene> scenes;    // a sample of the questions, in the order of sequences
  std::vector<Answer> answers;  // to them, as given in the run
  std::string skipped;          // why there was no run; empty: there was
};

/// Several sequences at once grow in the cache, in uneven chunks, until most of what they held has
/// left. Their attention and key norms are mirrored in pairs: what is hot in one is cold in the
/// other. Judges every answer, and reports blocks that stayed in every layer of every sequence.
CacheRun run_cache(const std::shared_ptr<const EvictionPolicy>& policy,
                   const ConformanceOptions& options, int32_t block_size, Dice& dice,
                   Findings& findings);

/// How a made-up scene is measured.
enum class Measures { kRandom, kEqual, kZero, kAscending, kDescending, kOneHot, kHuge, kTiny };
inline constexpr Measures kAllMeasures[] = {
    Measures::kRandom,     Measures::kEqual,  Measures::kZero, Measures::kAscending,
    Measures::kDescending, Measures::kOneHot, Measures::kHuge, Measures::kTiny};

/// A scene of n_blocks in one layer, with holes between them. Blocks are protected as the rule
/// says. Asks for one block's worth; set n_tokens for more.
Scene make_scene(const LayerRule& rule, const ConformanceOptions& options, int32_t layer,
                 int32_t block_size, int32_t n_blocks, Dice& dice);
/// Measurements that the rule's policy does not ask for stay as in an engine: nothing.
void set_measures(Scene& scene, PolicyNeeds needs, Measures measures, Dice& dice);

/// Awkward scenes of every kind for the layers that trim.
std::vector<Scene> make_scenes(const std::vector<LayerRule>& rules,
                               const ConformanceOptions& options, int32_t block_size, Dice& dice);

}  // namespace paddock
