#include "replay/block_numbers.h"

#include <limits>
#include <unordered_map>

#include "core/fail.h"
#include "core/mix.h"

namespace paddock {
namespace {

/// A block by what it continues and by its own number in the file: that one is not trusted to tell
/// prefixes apart.
struct Key {
  int32_t parent;
  uint64_t id;
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    return mix(mix(key.id) ^ static_cast<uint32_t>(key.parent));
  }
};

}  // namespace

NumberedTrace::NumberedTrace(const RequestTrace& trace) {
  std::unordered_map<Key, int32_t, KeyHash> numbers;
  blocks.reserve(trace.blocks.size());
  ends.reserve(trace.requests.size());
  for (const RequestTrace::Request& request : trace.requests) {
    if (request.first_block < 0 || request.n_blocks < 0 ||
        request.n_blocks > static_cast<int64_t>(trace.blocks.size()) - request.first_block) {
      fail(ErrorCode::kInvalidArgument, "request {} has {} blocks from {} on; the trace has {}",
           ends.size(), request.n_blocks, request.first_block, trace.blocks.size());
    }
    int32_t parent = -1;
    for (int64_t i = 0; i < request.n_blocks; ++i) {
      if (numbers.size() == static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        fail(ErrorCode::kInvalidArgument, "more than {} different blocks; replay a part of them",
             std::numeric_limits<int32_t>::max());
      }
      const auto next = static_cast<int32_t>(numbers.size());
      const auto [at, is_new] =
          numbers.try_emplace({parent, trace.blocks[request.first_block + i]}, next);
      found_by_infinite += is_new ? 0 : 1;
      parent = at->second;
      blocks.push_back(parent);
    }
    ends.push_back(static_cast<int64_t>(blocks.size()));
  }
  distinct = static_cast<int32_t>(numbers.size());
}

}  // namespace paddock
