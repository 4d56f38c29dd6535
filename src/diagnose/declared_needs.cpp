#include "diagnose/declared_needs.h"

#include <algorithm>

namespace paddock {
namespace {

/// What blocks were scored by, in their order.
std::vector<std::pair<int32_t, double>> scores_by_block(const Answer& answer) {
  std::vector<std::pair<int32_t, double>> scores;
  if (answer) {
    for (const Victim& v : *answer) scores.emplace_back(v.block, v.score);
  }
  std::sort(scores.begin(), scores.end());
  return scores;
}

class NeedsCheck {
 public:
  NeedsCheck(const AskedPolicy& asked, const ConformanceOptions& options, Dice& dice,
             Findings& findings)
      : asked_(asked), options_(options), dice_(dice), findings_(findings) {}

  void run();

 private:
  /// Whether an answer to the scene, `base`, becomes another one with other attention.
  bool attention_matters(const Scene& scene, const Answer& base);
  /// Likewise, with other norms of keys.
  bool norms_matter(const Scene& scene, const Answer& base);
  /// What the policy's need() says to it, where it is asked at all.
  std::optional<double> wants(const Scene& scene);

  const AskedPolicy& asked_;
  const ConformanceOptions& options_;
  Dice& dice_;
  Findings& findings_;
};

std::optional<double> NeedsCheck::wants(const Scene& scene) {
  return asked_.shares ? findings_.want(asked_.policy, scene) : std::optional<double>();
}

bool NeedsCheck::attention_matters(const Scene& scene, const Answer& base) {
  Scene varied = scene;
  set_measures(varied, {.attention = true}, Measures::kRandom, dice_);
  const bool wants_differ = wants(scene) != wants(varied);
  if (asked_.rule.needs.attention) {
    return wants_differ || !same_answer(base, findings_.ask(asked_.policy, varied));
  }
  if (wants_differ) {
    findings_.error(FindingKind::kNeeds,
                    "need() goes by mass, recent_mass or last_used, but needs().attention is "
                    "false; in an engine they would all be zero, or a block's own position");
  }
  // Ranking equal scores by last_used is right; scoring by it is not.
  const bool by_use =
      scores_by_block(base) != scores_by_block(findings_.ask(asked_.policy, varied));
  for (size_t b = 0; b < scene.blocks.size(); ++b) {
    varied.blocks[b].last_used = scene.blocks[b].last_used;
  }
  if (by_use || !same_answer(base, findings_.ask(asked_.policy, varied))) {
    findings_.error(FindingKind::kNeeds,
                    "trim() ranks by mass, recent_mass or last_used, but needs().attention is "
                    "false; in an engine they would all be zero, or a block's own position");
  }
  return false;
}

bool NeedsCheck::norms_matter(const Scene& scene, const Answer& base) {
  Scene varied = scene;
  set_measures(varied, {.key_norms = true}, Measures::kRandom, dice_);
  const bool differs = !same_answer(base, findings_.ask(asked_.policy, varied));
  const bool wants_differ = wants(scene) != wants(varied);
  if (wants_differ && !asked_.rule.needs.key_norms) {
    findings_.error(FindingKind::kNeeds,
                    "need() goes by key_norm, but needs().key_norms is false; in an engine it "
                    "would be zero");
  }
  if (differs && !asked_.rule.needs.key_norms) {
    findings_.error(FindingKind::kNeeds,
                    "trim() ranks by key_norm, but needs().key_norms is false; in an engine it "
                    "would be zero");
  }
  return differs || wants_differ;
}

void NeedsCheck::run() {
  constexpr int32_t kBlocks = 24;
  constexpr int32_t kScenes = 16;
  const LayerRule& rule = asked_.rule;
  bool attention = false, norms = false;
  for (int32_t i = 0; i < kScenes; ++i) {
    Scene scene = make_scene(rule, options_, asked_.layer, 16, kBlocks, dice_);
    set_measures(scene, rule.needs, Measures::kRandom, dice_);
    for (BlockInfo& block : scene.blocks) block.is_protected = false;
    scene.n_tokens = scene.unprotected_tokens();
    const Answer base = findings_.ask(asked_.policy, scene);
    attention |= attention_matters(scene, base);
    norms |= norms_matter(scene, base);
  }
  const auto unused = [&](const char* what) {
    findings_.warning(FindingKind::kNeeds,
                      "needs().{} is true, but no answer depends on what it measures; leave it out "
                      "and save the time",
                      what);
  };
  if (rule.needs.attention && !attention) unused("attention");
  if (rule.needs.key_norms && !norms) unused("key_norms");
}

}  // namespace

void check_needs(const AskedPolicy& asked, const ConformanceOptions& options, Dice& dice,
                 Findings& findings) {
  NeedsCheck(asked, options, dice, findings).run();
}

}  // namespace paddock
