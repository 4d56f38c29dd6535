// What an eviction policy may decide, and nothing else. The cache manager owns the truth; a policy
// answers questions about host metadata. It never sees keys, values or a device.
//
// A policy of your own is one class derived from EvictionPolicy, handed to the engine in
// KvOptions::custom_policies, by name for SPECs, or in KvOptions::custom_policy, for all layers:
// examples/custom_policy.cpp is one, paddock/testing.h checks it.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "paddock/export.h"

namespace paddock {

/// Of a window, a budget or a length, in positions: none, any. As many positions as there can be.
inline constexpr int32_t kUnlimited = std::numeric_limits<int32_t>::max();

/// What a query at position t sees in one layer, among what is resident: p <= t and
/// (p < sinks or p > t - window). Exact to the token; a page leaves when no later query can see it.
struct TokenVisibility {
  int32_t sinks = 0;            ///< the first positions of the sequence; >= 0
  int32_t window = kUnlimited;  ///< the newest positions, the query's own included; >= 1

  bool bounded() const { return window != kUnlimited; }
  friend bool operator==(const TokenVisibility&, const TokenVisibility&) = default;
};

/// How surviving tokens are placed for attention.
enum class Positions {
  kOriginal,  ///< every token keeps its own position
  kCompact,   ///< survivors look contiguous (StreamingLLM): queries turn, keys never move
};

/// What is measured for trim(). Nothing is, and nothing is paid, unless asked for.
struct PolicyNeeds {
  bool attention = false;  ///< BlockInfo::mass, recent_mass and last_used
  bool key_norms = false;  ///< BlockInfo::key_norm

  friend bool operator==(const PolicyNeeds&, const PolicyNeeds&) = default;
};

/// When a sequence is trimmed in a layer, and what stays. Steps of the engine are split at these
/// lengths, so that the outcome does not depend on how a prompt is chunked.
struct TrimSchedule {
  int32_t budget = kUnlimited;  ///< positions that remain after a decision; kUnlimited: no trims
  int32_t every = 64;           ///< decide when the length reaches a multiple; 0: once, where the
                                ///< prompt ends (the cache is not bounded while it is read)
  int32_t observe = 0;          ///< recent_mass counts this many queries before the decision;
                                ///< 0: all since the last one
  int32_t keep_first = 0;       ///< blocks with any of the first positions are protected,
  int32_t keep_newest = 0;      ///< and those with any of the newest; the newest block always is
  int32_t newest_divisor = 0;  ///< n: keep_newest is budget / n, and would grow with the budget, as
                               ///< KvEvent::sufficient_budget then assumes; 0: it would not

  friend bool operator==(const TrimSchedule&, const TrimSchedule&) = default;
};

/// A resident block of one sequence in one layer.
struct BlockInfo {
  int64_t first_position = 0;
  int32_t n_tokens = 0;
  bool is_protected = false;  ///< naming it as a victim is a violation
  double mass = 0;            ///< attention it received, summed over query heads and queries so far
  double recent_mass = 0;     ///< likewise, of the queries that TrimSchedule::observe names
  int64_t last_used = 0;      ///< newest query position that gave it at least its fair share:
                              ///< n_heads * n_tokens / visible tokens; its own first until then
  double key_norm = 0;        ///< sum over KV heads of ||key||_2, mean over its tokens
};

/// One sequence in one layer at a decision.
struct LayerView {
  int32_t layer = 0;
  int32_t n_layers = 0;
  int32_t n_heads = 0;  ///< query heads
  int32_t block_size = 0;
  int64_t length = 0;                 ///< positions of the sequence so far
  int64_t tokens = 0;                 ///< of them, resident in this layer
  std::span<const BlockInfo> blocks;  ///< in position order
};

struct Victim {
  int32_t block = 0;  ///< index into LayerView::blocks
  double score = 0;   ///< what it was ranked by, for the event log; a smaller one leaves first;
                      ///< finite
};

/// A policy for one set of layers. Implementations must be deterministic and keep no state between
/// decisions: one object serves several layers and sequences. Calls come from the thread that
/// drives the engine, with no lock held: of its methods those for any thread may be called
/// (docs/hosts.md). What trim() and need() throw, and what an elastic rule throws that is asked
/// with a budget while it runs, is caught, counted and overruled; what the others throw refuses the
/// policy, as Error kInvalidArgument with its name.
class PADDOCK_API EvictionPolicy {
 public:
  virtual ~EvictionPolicy();

  /// The rule as written on the command line, such as "sink:4+252". Part of the cache's identity:
  /// two policies of equal name must behave equally.
  virtual std::string name() const = 0;

  /// What queries of `layer` see; everything unless overridden. Asked once, when the policy is set,
  /// like needs(), positions() and schedule().
  virtual TokenVisibility visibility(int32_t layer) const;

  /// How queries meet what is left; kOriginal unless overridden.
  virtual Positions positions() const { return Positions::kOriginal; }

  virtual PolicyNeeds needs() const { return {}; }

  /// No trims unless overridden.
  virtual TrimSchedule schedule(int32_t layer, int32_t n_layers) const;

  /// Whether the rule has no budget of its own: it drops nothing until pages are short, and goes by
  /// the budgets that it is then given, each sequence by its own.
  virtual bool is_elastic() const { return false; }
  /// Asked of an elastic rule in place of the other one, for any budget from the least to
  /// kUnlimited, with which nothing leaves: positions per layer, on average over the model's
  /// layers. Budget, keep_first, keep_newest and newest_divisor may depend on it, `every` (1 or
  /// more) and `observe` may not. Such a rule limits nothing by visibility().
  virtual TrimSchedule schedule(int32_t layer, int32_t n_layers, int32_t budget) const;
  /// The least budget that an elastic rule is given; 0: the least that leaves something to choose
  /// from beside what it protects.
  virtual int32_t min_budget() const { return 0; }

  /// Whether the layers under this object share among themselves what a sequence may keep, by
  /// need(): anew at each decision, which they make together, so `every` is the same in all of
  /// them. Instead of its own budget each gets a share: 32 positions or half the mean budget at
  /// least, whichever is less, and four times that mean at most. The mean of the shares is never
  /// more than that of the budgets that schedule(layer, n_layers) answers, of an elastic rule than
  /// the one in force.
  /// schedule(layer, n_layers, budget) is then asked with the share as `budget`, fixed rule or
  /// elastic, and takes no more; `every` and `observe` stay as they are.
  virtual bool shares_by_need() const { return false; }
  /// How much the layer wants, beside the others that share with it: finite, 0 or more. Like
  /// trim() it depends on the view alone.
  virtual double need(const LayerView& view) const;

  /// Names blocks that may leave, most evictable first, until they hold `n_tokens` or more, and if
  /// possible one block beyond (the runner-up, for the event log). Whole blocks leave from the
  /// front until the budget is met. Never a protected block, none twice. Where too few are named
  /// the oldest unprotected blocks follow. Equal scores: the less recently used, then the deeper
  /// block first. At most O(blocks log blocks).
  ///
  /// A rule that is not elastic is asked once for each decision of a sequence: one that is parked
  /// and computed again decides again what it decided before. An elastic one is asked, beside that,
  /// whenever smaller budgets are considered: several times for one shortage of pages, and also for
  /// falls that then do not come. With KvTrace::scores either is asked once more for each decision.
  /// All answers but those for the trace count in KvStats, as wrong, short or slow.
  virtual void trim(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims) const;
};

/// Makes a policy of the host's own from what follows NAME in a RULE, without the colon: "256" in
/// "mine:256", "256@every:32" in "mine:256@every:32", "" in "mine". Wrong arguments: throw Error.
using PolicyMaker =
    std::function<std::shared_ptr<const EvictionPolicy>(std::string_view arguments)>;
/// By NAME: a letter, then letters, digits, '_', '-' and '.'; not the name of a built-in rule.
using CustomPolicies = std::map<std::string, PolicyMaker, std::less<>>;

/// Makes a policy from one RULE: a built-in one, such as "full", "sink:4+252", "h2o:256@every:32"
/// (docs/policies.md lists them), or one of `custom`. Error kInvalidArgument naming the rule, the
/// value and the fix.
PADDOCK_API std::shared_ptr<const EvictionPolicy> make_policy(std::string_view rule,
                                                              const CustomPolicies& custom = {});

/// The forms of all built-in rules, such as "sink:S+W".
PADDOCK_API std::vector<std::string> policy_forms();

/// Ranks the unprotected blocks of `view` by score(index into view.blocks), the smallest first, in
/// the order and number that trim() asks for. A scored policy is this and one formula. Error
/// kInvalidArgument for a score that is not finite, or none.
PADDOCK_API void rank_blocks(const LayerView& view, int64_t n_tokens, std::vector<Victim>& victims,
                             const std::function<double(int32_t block)>& score);

}  // namespace paddock
