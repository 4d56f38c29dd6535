// What the conformance suite holds against a policy: answers are judged here, one at a time.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "paddock/testing.h"

namespace paddock {

/// One question to trim(), kept so that it can be asked again.
struct Scene {
  LayerView head;                 // its `blocks` are not used: see view()
  std::vector<BlockInfo> blocks;  // in position order
  int64_t n_tokens = 0;           // asked to leave
  int32_t sequence = -1;          // of the run it was seen in; -1: made up

  LayerView view() const {
    LayerView seen = head;
    seen.blocks = blocks;
    return seen;
  }
  int64_t unprotected_tokens() const;
  std::string where() const;  // "in layer 2 at 832 positions, 52 blocks of up to 16"
};

/// What trim() named; nothing if it threw.
using Answer = std::optional<std::vector<Victim>>;
bool same_answer(const Answer& a, const Answer& b);

/// Collects findings; those of a kind and severity are counted, the first is told.
class Findings {
 public:
  template <typename... Args>
  void error(FindingKind kind, fmt::format_string<Args...> format, Args&&... args) {
    add(kind, Severity::kError, fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void warning(FindingKind kind, fmt::format_string<Args...> format, Args&&... args) {
    add(kind, Severity::kWarning, fmt::format(format, std::forward<Args>(args)...));
  }
  bool has(FindingKind kind) const;
  void forget(FindingKind kind);
  std::vector<Finding> sorted() const;

  /// Calls trim(); what it throws is a finding.
  Answer ask(const EvictionPolicy& policy, const Scene& scene);
  /// Calls need(); what it throws is a finding, as is a number that is none, and there is nothing.
  std::optional<double> want(const EvictionPolicy& policy, const Scene& scene);
  /// Everything one answer shows by itself.
  void judge(const Scene& scene, const std::vector<Victim>& victims);
  int64_t decisions = 0;  // answers judged

  /// Those of another suite, which saw the policy `where`.
  void take(const ConformanceReport& other, const std::string& where);

 private:
  void add(FindingKind kind, Severity severity, std::string sentence, int64_t times = 1);
  bool names_are_valid(const Scene& scene, const std::vector<Victim>& victims);
  void judge_order(const Scene& scene, const std::vector<Victim>& victims);
  void judge_number(const Scene& scene, const std::vector<Victim>& victims);

  std::vector<Finding> findings_;
};

/// The text of the exception being handled.
std::string current_exception_text();

}  // namespace paddock
