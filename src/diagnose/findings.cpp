#include "diagnose/findings.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <exception>

namespace paddock {

const char* finding_kind_name(FindingKind kind) noexcept {
  switch (kind) {
    case FindingKind::kThrows:
      return "throws";
    case FindingKind::kName:
      return "name";
    case FindingKind::kSettings:
      return "settings";
    case FindingKind::kOutOfRange:
      return "out_of_range";
    case FindingKind::kProtected:
      return "protected";
    case FindingKind::kDuplicate:
      return "duplicate";
    case FindingKind::kScore:
      return "score";
    case FindingKind::kOrder:
      return "order";
    case FindingKind::kNondeterministic:
      return "nondeterministic";
    case FindingKind::kState:
      return "state";
    case FindingKind::kNeeds:
      return "needs";
    case FindingKind::kShortfall:
      return "shortfall";
    case FindingKind::kForgotten:
      return "forgotten";
    case FindingKind::kCost:
      return "cost";
  }
  return "unknown";
}

bool ConformanceReport::conforms() const {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& f) { return f.severity == Severity::kError; });
}

std::string to_text(const ConformanceReport& report) {
  std::string text = fmt::format(
      "policy '{}': {} ({} decisions)\n", report.policy,
      report.clean() ? "clean"
                     : (report.conforms() ? "conforms, with warnings" : "does not conform"),
      report.decisions);
  for (const Finding& f : report.findings) {
    text += fmt::format("  {} [{}] {}", f.severity == Severity::kError ? "error" : "warning",
                        finding_kind_name(f.kind), f.sentence);
    text += f.times > 1 ? fmt::format(" ({} times)\n", f.times) : "\n";
  }
  for (const std::string& note : report.notes) text += fmt::format("  note: {}\n", note);
  return text;
}

int64_t Scene::unprotected_tokens() const {
  int64_t tokens = 0;
  for (const BlockInfo& block : blocks) tokens += block.is_protected ? 0 : block.n_tokens;
  return tokens;
}

std::string Scene::where() const {
  return fmt::format("in layer {} at {} positions, asked for {} of {} in {} blocks", head.layer,
                     head.length, n_tokens, head.tokens, blocks.size());
}

bool same_answer(const Answer& a, const Answer& b) {
  if (a.has_value() != b.has_value()) return false;
  return !a || std::equal(a->begin(), a->end(), b->begin(), b->end(),
                          [](const Victim& x, const Victim& y) {
                            return x.block == y.block && std::bit_cast<uint64_t>(x.score) ==
                                                             std::bit_cast<uint64_t>(y.score);
                          });
}

std::string current_exception_text() {
  try {
    throw;
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "something that is no std::exception";
  }
}

void Findings::take(const ConformanceReport& other, const std::string& where) {
  decisions += other.decisions;
  for (const Finding& f : other.findings) {
    add(f.kind, f.severity, where + ": " + f.sentence, f.times);
  }
}

void Findings::add(FindingKind kind, Severity severity, std::string sentence, int64_t times) {
  for (Finding& f : findings_) {
    if (f.kind == kind && f.severity == severity) {
      f.times += times;
      return;
    }
  }
  findings_.push_back({kind, severity, std::move(sentence), times});
}

bool Findings::has(FindingKind kind) const {
  return std::any_of(findings_.begin(), findings_.end(),
                     [&](const Finding& f) { return f.kind == kind; });
}

void Findings::forget(FindingKind kind) {
  std::erase_if(findings_, [&](const Finding& f) { return f.kind == kind; });
}

std::vector<Finding> Findings::sorted() const {
  std::vector<Finding> findings = findings_;
  std::sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    return std::pair(a.kind, a.severity) < std::pair(b.kind, b.severity);
  });
  return findings;
}

std::optional<double> Findings::want(const EvictionPolicy& policy, const Scene& scene) {
  double need = 0;
  try {
    need = policy.need(scene.view());
  } catch (...) {
    error(FindingKind::kThrows, "need() threw: {} ({})", current_exception_text(), scene.where());
    return std::nullopt;
  }
  if (std::isfinite(need) && need >= 0) return need;
  error(FindingKind::kScore, "need() is {} {}; it must be finite, and 0 or more", need,
        scene.where());
  return std::nullopt;
}

Answer Findings::ask(const EvictionPolicy& policy, const Scene& scene) {
  std::vector<Victim> victims;
  try {
    policy.trim(scene.view(), scene.n_tokens, victims);
    return victims;
  } catch (...) {
    error(FindingKind::kThrows, "trim() threw {}: {}", scene.where(), current_exception_text());
    return std::nullopt;
  }
}

void Findings::judge(const Scene& scene, const std::vector<Victim>& victims) {
  ++decisions;
  if (!names_are_valid(scene, victims)) return;
  judge_order(scene, victims);
  judge_number(scene, victims);
}

bool Findings::names_are_valid(const Scene& scene, const std::vector<Victim>& victims) {
  std::vector<bool> named(scene.blocks.size());
  for (const Victim& victim : victims) {
    if (victim.block < 0 || victim.block >= static_cast<int32_t>(scene.blocks.size())) {
      error(FindingKind::kOutOfRange,
            "trim() named block {} {}; indices go into LayerView::blocks, from 0", victim.block,
            scene.where());
      return false;
    }
    const BlockInfo& block = scene.blocks[victim.block];
    if (block.is_protected) {
      error(FindingKind::kProtected,
            "trim() named block {} at position {}, which is protected, {}; leave out what has "
            "is_protected set",
            victim.block, block.first_position, scene.where());
      return false;
    }
    if (named[victim.block]) {
      error(FindingKind::kDuplicate, "trim() named block {} at position {} twice {}", victim.block,
            block.first_position, scene.where());
      return false;
    }
    named[victim.block] = true;
  }
  return true;
}

void Findings::judge_order(const Scene& scene, const std::vector<Victim>& victims) {
  for (const Victim& victim : victims) {
    if (std::isfinite(victim.score)) continue;
    error(FindingKind::kScore,
          "the score of block {} is {} {}; give every victim a finite one, or logs cannot say why "
          "it left",
          victim.block, victim.score, scene.where());
    return;
  }
  for (size_t i = 1; i < victims.size(); ++i) {
    const Victim& a = victims[i - 1];
    const Victim& b = victims[i];
    const auto tell = [&](Severity severity, const char* rule) {
      add(FindingKind::kOrder, severity,
          fmt::format("trim() named block {} of score {} before block {} of score {} {}; {}",
                      a.block, a.score, b.block, b.score, scene.where(), rule));
    };
    if (a.score > b.score) {
      tell(Severity::kError, "the smaller score leaves first");
      return;
    }
    const int64_t used_a = scene.blocks[a.block].last_used;
    const int64_t used_b = scene.blocks[b.block].last_used;
    if (a.score == b.score && (used_a != used_b ? used_a > used_b : a.block < b.block)) {
      tell(Severity::kWarning,
           "of equal scores the less recently used leaves first, then the deeper (rank_blocks() "
           "sees to it)");
      return;
    }
  }
}

void Findings::judge_number(const Scene& scene, const std::vector<Victim>& victims) {
  const int64_t there = scene.unprotected_tokens();
  int64_t named = 0;
  for (const Victim& victim : victims) named += scene.blocks[victim.block].n_tokens;
  if (named >= std::min(scene.n_tokens, there)) return;
  int32_t smallest = scene.head.block_size;
  size_t left_out = scene.blocks.size();
  for (size_t i = scene.blocks.size(); i-- > 0;) {
    if (scene.blocks[i].is_protected) continue;
    smallest = std::min(smallest, scene.blocks[i].n_tokens);
    if (std::none_of(victims.begin(), victims.end(),
                     [&](const Victim& v) { return v.block == static_cast<int32_t>(i); })) {
      left_out = i;
    }
  }
  if (scene.n_tokens <= there - smallest) {
    warning(FindingKind::kShortfall,
            "trim() named blocks of {} positions {}, though {} are not protected; the oldest leave "
            "in place of those it did not name",
            named, scene.where(), there);
  } else {
    warning(FindingKind::kForgotten,
            "trim() left out block {} at position {} {}, when all that is not protected must go; "
            "if it is to stay, have it protected by TrimSchedule::keep_first or keep_newest",
            left_out, scene.blocks[left_out].first_position, scene.where());
  }
}

}  // namespace paddock
