// A conformance suite for eviction policies: what a host runs on a policy of its own before an
// engine does. It needs no model. The policy is driven through the real cache manager with made-up
// attention and key norms, and then asked again about what it saw there, and about views made to
// be awkward: in another order, from another object, with other measurements, at other sizes. An
// elastic policy is asked under budgets of all sizes, and driven under several.
//
//   const auto report = paddock::check_policy([] { return std::make_shared<Mine>(256); });
//   std::cout << paddock::to_text(report);
//   return report.conforms() ? 0 : 1;
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "paddock/eviction.h"
#include "paddock/export.h"

namespace paddock {

/// What can be wrong with a policy. Errors break the contract of EvictionPolicy: an engine would
/// refuse the policy, overrule its answer, or give results that cannot be repeated. Warnings are
/// allowed, but seldom meant.
enum class FindingKind {
  kThrows,      ///< a method threw
  kName,        ///< name() is empty, changes, differs between objects, or is that of a
                ///< built-in rule. Warning: it has characters that logs and SPECs dislike
  kSettings,    ///< visibility(), positions(), needs() or schedule() are refused by the cache,
                ///< change between calls, or differ between objects; of an elastic policy, or one
                ///< that shares by need, schedule() throws or makes no sense under some budget
  kOutOfRange,  ///< named a block that is not there
  kProtected,   ///< named a protected block
  kDuplicate,   ///< named a block twice
  kScore,       ///< a victim's score is not finite, or need() is not, or less than 0
  kOrder,       ///< victims are not in ascending order of their scores. Warning: of blocks with
                ///< equal scores it did not name the less recently used, then the deeper first
  kNondeterministic,  ///< answered the same question differently: twice in a row, or as another
                      ///< object of the same factory in the same place
  kState,             ///< its answer depends on what it was asked before, such as about another
                      ///< sequence or layer
  kNeeds,             ///< ranks by a measurement that needs() does not ask for: it will be missing.
                      ///< Warning: asks for one that no answer depends on
  kShortfall,         ///< warning: named too few blocks although there were more
  kForgotten,         ///< warning: blocks that it never names, though unprotected: neither when all
                      ///< must go, nor in any sequence of a long run, whatever was measured
  kCost,              ///< warning: the time of a decision grows faster than O(blocks log blocks)
};
/// "throws", "name", "settings", "out_of_range", "protected", "duplicate", "score", "order",
/// "nondeterministic", "state", "needs", "shortfall", "forgotten" or "cost".
PADDOCK_API const char* finding_kind_name(FindingKind kind) noexcept;

enum class Severity { kError, kWarning };

/// The first occasion of one kind and severity, and how many there were.
struct Finding {
  FindingKind kind = FindingKind::kThrows;
  Severity severity = Severity::kError;
  std::string sentence;  ///< what happened where, with values, and what would mend it
  int64_t times = 1;
};

struct PADDOCK_API ConformanceReport {
  std::string policy;              ///< its name()
  int64_t decisions = 0;           ///< answers of trim() that were looked at
  std::vector<Finding> findings;   ///< by kind, errors before warnings
  std::vector<std::string> notes;  ///< what could not be looked at, and why

  bool conforms() const;  ///< no errors
  bool clean() const { return findings.empty(); }
};

/// For people: a verdict, then one line per finding and note. Ends in a newline.
PADDOCK_API std::string to_text(const ConformanceReport& report);

struct ConformanceOptions {
  uint64_t seed = 1;         ///< of everything made up: equal seeds ask equal questions
  int32_t n_layers = 6;      ///< of the simulated model, 4 to 64
  int32_t n_heads = 8;       ///< query heads, 1 to 1024
  bool measure_cost = true;  ///< the only part that looks at a clock (the thread's own)
};

/// Makes a policy; each call another object that should behave the same.
using PolicyFactory = std::function<std::shared_ptr<const EvictionPolicy>()>;

/// Runs the suite: seconds at most, for a policy that meets its bound. What the policy throws is
/// reported; a policy that crashes or hangs takes the caller with it. Errors: kInvalidArgument for
/// options out of range, for a factory that throws or makes nothing.
PADDOCK_API ConformanceReport check_policy(const PolicyFactory& factory,
                                           const ConformanceOptions& options = {});
/// With one object, what only another would show cannot be seen: chance fixed at construction, what
/// it remembers from the first time on.
PADDOCK_API ConformanceReport check_policy(const std::shared_ptr<const EvictionPolicy>& policy,
                                           const ConformanceOptions& options = {});

}  // namespace paddock
