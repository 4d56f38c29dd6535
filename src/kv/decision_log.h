// What rules have decided of one text, in order: so that a sequence that lost its tables and is
// computed again comes back as it was. Its rules are not asked again, which may answer otherwise:
// a device's sums may depend on the batch, and a host's policy on whatever it likes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "paddock/eviction.h"

namespace paddock {

enum class DecisionKind : uint8_t {
  kVictim,     // the block leaves, as the policy said
  kOverruled,  // the block leaves, as the manager chose in its place
  kRunnerUp,   // the block that the policy would have named next
  kBudget,     // elastic rules go by another budget from here on: first_position has it; the
               // decisions of all layers that follow at this length are those of that fall
  kShare,      // what the layer may keep from here on, of what layers share by need:
               // first_position has it; the decisions that follow at this length go by it
};
/// In place of a layer, with kBudget.
inline constexpr int32_t kAllLayers = -1;

/// One line of the log. Those of one decision stand together, in the order in which blocks leave.
struct DecisionEntry {
  double score = 0;
  int32_t length = 0;          // of the sequence when it was decided
  int32_t first_position = 0;  // of the block; with kBudget and kShare: the budget, the share
  int32_t layer = 0;
  DecisionKind kind = DecisionKind::kVictim;
  bool begins = false;  // the first of its decision: a layer may decide twice at one length
};
static_assert(sizeof(DecisionEntry) == 24);

/// Owned by who owns the text, and handed to CacheManager::open() each time the text gets tables:
/// what the log reaches is then replayed, what comes after is appended. Nobody else calls it while
/// those tables are open.
///
/// Logs of texts that begin alike share their entries until one of them appends, so that beginning
/// as another one does takes no memory.
class DecisionLog {
 public:
  /// The length up to which it knows what was decided.
  int64_t reaches() const { return reaches_; }
  int64_t n_entries() const { return size_; }
  std::span<const DecisionEntry> entries() const;
  /// How many of the entries have been taken or appended since the last rewind().
  int64_t taken() const { return next_; }
  /// Bytes held by it, those included that others share. Tests bound them; nothing else asks.
  int64_t bytes() const;

  /// Makes room for `n` more entries, which append() then needs no memory for. If it throws nothing
  /// has changed.
  void make_room(int64_t n);
  /// Only after make_room() for it, and when all entries before it have been taken.
  void append(const DecisionEntry& entry);
  /// Everything decided up to this length is in the log now.
  void reach(int64_t length);

  /// Back to the first entry: the text is computed again.
  void rewind() { next_ = 0; }
  /// The next decision, which is the one at this length in this layer; empty if it is not.
  std::span<const DecisionEntry> take(int64_t length, int32_t layer);

  /// A budget from `length` on. Only after make_room() for it, and if no entry is of a later
  /// length.
  void append_budget(int64_t length, int32_t budget);
  /// The budget at its end; kUnlimited: it knows of none.
  int32_t last_budget() const;
  /// The smallest of all that it knows of; kUnlimited: of none.
  int32_t least_budget() const;
  /// The length of the next entry, and of the next one with a budget, among those that are not
  /// taken yet; the largest number where there is none.
  int64_t next_length() const;
  int64_t next_budget_length() const;

  /// Decisions beyond `length` never were.
  void cut(int64_t length);
  /// Becomes what the other one is up to `length`, and has taken all of it. Takes no memory.
  void begin_as(const DecisionLog& other, int64_t length) noexcept;

 private:
  using Entries = std::vector<DecisionEntry>;
  void push(const DecisionEntry& entry);
  bool is_own() const { return entries_ != nullptr && entries_.use_count() == 1; }

  std::shared_ptr<Entries> entries_;  // of which the first size_ are this log's
  int64_t size_ = 0;
  int64_t next_ = 0;  // taken
  int64_t reaches_ = 0;
};

}  // namespace paddock
