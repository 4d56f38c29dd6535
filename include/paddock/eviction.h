// What an eviction policy may decide, and nothing else. The cache manager owns the truth; a policy
// only answers questions about host metadata. It never sees keys, values or a device.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

#include "paddock/export.h"

namespace paddock {

inline constexpr int32_t kUnlimited = std::numeric_limits<int32_t>::max();

/// What a query at position t sees in one layer: p <= t and (p < sinks or p > t - window).
/// Exact to the token; a page leaves only when no later query can see any of it.
struct TokenVisibility {
  int32_t sinks = 0;            ///< the first positions of the sequence; >= 0
  int32_t window = kUnlimited;  ///< the newest positions, the query's own included; >= 1

  bool bounded() const { return window != kUnlimited; }
};

/// How surviving tokens are placed for attention.
enum class Positions {
  kOriginal,  ///< every token keeps its own position
  kCompact,   ///< survivors look contiguous (StreamingLLM): queries turn, keys never move
};

/// A policy for one set of layers. Implementations must be deterministic and may be shared by
/// several sequences; calls come from the thread that drives the engine.
class PADDOCK_API EvictionPolicy {
 public:
  virtual ~EvictionPolicy();

  /// The rule as written on the command line, such as "sink:4+252". Part of the cache's identity:
  /// two policies of equal name must behave equally.
  virtual std::string name() const = 0;

  /// What queries of `layer` see. Must not change during the life of a sequence.
  virtual TokenVisibility visibility(int32_t layer) const = 0;

  /// How queries meet what is left; kOriginal unless overridden.
  virtual Positions positions() const { return Positions::kOriginal; }
};

/// Makes a built-in policy from one RULE: `full`, `window:W`, `sink:S+W`, each with an optional
/// `@original` or `@compact`. Error kInvalidArgument naming the rule, the value and what is right.
PADDOCK_API std::shared_ptr<const EvictionPolicy> make_policy(std::string_view rule);

}  // namespace paddock
