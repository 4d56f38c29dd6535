// What the order finds that knows what comes (Belady, "A study of replacement algorithms for a
// virtual-storage computer", 1966), and may also not keep a block at all: of all blocks seen those
// stay that are asked for soonest. Nothing can find more.
#include <queue>
#include <utility>

#include "replay/block_numbers.h"

namespace paddock {
namespace {

/// Of each block asked for: the request that asks for it next; n_requests(): none does.
std::vector<int32_t> next_requests(const NumberedTrace& trace) {
  std::vector<int32_t> next(trace.blocks.size());
  std::vector<int32_t> later(trace.distinct, static_cast<int32_t>(trace.n_requests()));
  size_t at = trace.blocks.size();
  for (int64_t i = trace.n_requests(); i-- > 0;) {
    const std::span<const int32_t> request = trace.request(i);
    for (size_t j = request.size(); j-- > 0;) {
      next[--at] = std::exchange(later[request[j]], static_cast<int32_t>(i));
    }
  }
  return next;
}

}  // namespace

int64_t found_by_belady(const NumberedTrace& trace, int64_t capacity) {
  const std::vector<int32_t> next = next_requests(trace);
  const auto never = static_cast<int32_t>(trace.n_requests());
  std::vector<int32_t> kept(trace.distinct, -1);  // the request that asks for it; -1: not kept
  int64_t n_kept = 0;
  // Of two blocks that are asked for together the deeper one, whose number is larger, goes first,
  // so that what is kept is always the beginning of a text. Entries of requests that came stay
  // below those of blocks that are kept, which are asked for later, and never come to the top.
  std::priority_queue<std::pair<int32_t, int32_t>> last;
  int64_t found = 0;
  size_t at = 0;
  for (int64_t i = 0; i < trace.n_requests(); ++i) {
    for (const int32_t block : trace.request(i)) {
      if (kept[block] >= 0) {
        ++found;
        --n_kept;
      }
      const int32_t when = next[at++];
      kept[block] = when == never ? -1 : when;
      if (when == never) continue;
      ++n_kept;
      last.emplace(when, block);
    }
    while (n_kept > capacity) {
      const int32_t block = last.top().second;
      last.pop();
      kept[block] = -1;
      --n_kept;
    }
  }
  return found;
}

}  // namespace paddock
