#include "text/merge_table.h"

#include <algorithm>
#include <limits>

#include "core/fail.h"
#include "core/utf8.h"

namespace paddock {
namespace {

// Up to here, scanning all pairs for the best one beats keeping a heap.
constexpr size_t kShort = 24;

}  // namespace

void MergeTable::seal(const Vocabulary& vocabulary) {
  std::sort(pending_.begin(), pending_.end(), [](const Pending& a, const Pending& b) {
    return a.left != b.left ? a.left < b.left : a.merge.right < b.merge.right;
  });
  first_.assign(static_cast<size_t>(vocabulary.size()) + 1, 0);
  merges_.reserve(pending_.size());
  for (size_t i = 0; i < pending_.size(); ++i) {
    const Pending& p = pending_[i];
    if (i > 0 && pending_[i - 1].left == p.left && pending_[i - 1].merge.right == p.merge.right) {
      fail(ErrorCode::kBadFile, "the merge of {} and {} is given twice",
           quote(vocabulary.bytes(p.left)), quote(vocabulary.bytes(p.merge.right)));
    }
    ++first_[static_cast<size_t>(p.left) + 1];
    merges_.push_back(p.merge);
  }
  for (size_t i = 1; i < first_.size(); ++i) first_[i] += first_[i - 1];
  pending_ = {};
}

void Merger::consider(int32_t left, int32_t right) {
  const TokenId a = symbols_[static_cast<size_t>(left)].id;
  const TokenId b = symbols_[static_cast<size_t>(right)].id;
  if (const auto* m = table_.find(a, b)) {
    heap_.push_back({m->rank, left, a, b, m->result});
    std::push_heap(heap_.begin(), heap_.end(), [](const Candidate& x, const Candidate& y) {
      return x.rank != y.rank ? x.rank > y.rank : x.at > y.at;
    });
  }
}

void Merger::merge_short(std::vector<TokenId>& ids) {
  pairs_.clear();
  for (size_t i = 0; i + 1 < ids.size(); ++i) pairs_.push_back(table_.find(ids[i], ids[i + 1]));
  for (;;) {
    size_t best = pairs_.size();
    uint32_t rank = std::numeric_limits<uint32_t>::max();
    for (size_t i = 0; i < pairs_.size(); ++i) {
      if (pairs_[i] != nullptr && (pairs_[i]->rank < rank || best == pairs_.size())) {
        best = i;
        rank = pairs_[i]->rank;
      }
    }
    if (best == pairs_.size()) return;
    ids[best] = pairs_[best]->result;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best) + 1);
    pairs_.erase(pairs_.begin() + static_cast<ptrdiff_t>(best));
    if (best > 0) pairs_[best - 1] = table_.find(ids[best - 1], ids[best]);
    if (best < pairs_.size()) pairs_[best] = table_.find(ids[best], ids[best + 1]);
  }
}

void Merger::merge(std::vector<TokenId>& ids) {
  if (ids.size() <= kShort) return merge_short(ids);
  const auto later = [](const Candidate& x, const Candidate& y) {
    return x.rank != y.rank ? x.rank > y.rank : x.at > y.at;
  };
  const auto n = static_cast<int32_t>(ids.size());
  symbols_.clear();
  heap_.clear();
  for (int32_t i = 0; i < n; ++i) {
    symbols_.push_back({ids[static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1});
  }
  for (int32_t i = 0; i + 1 < n; ++i) {
    const TokenId a = symbols_[static_cast<size_t>(i)].id;
    const TokenId b = symbols_[static_cast<size_t>(i) + 1].id;
    if (const auto* m = table_.find(a, b)) heap_.push_back({m->rank, i, a, b, m->result});
  }
  std::make_heap(heap_.begin(), heap_.end(), later);
  while (!heap_.empty()) {
    const Candidate c = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<size_t>(c.at)];
    // A candidate is stale if either side has been merged with something else since.
    if (left.id != c.left || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    if (right.id != c.right) continue;
    right.id = -1;
    left.id = c.result;
    left.next = right.next;
    if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = c.at;
    if (left.previous >= 0) consider(left.previous, c.at);
    if (left.next >= 0) consider(c.at, left.next);
  }
  ids.clear();
  for (int32_t i = 0; i >= 0; i = symbols_[static_cast<size_t>(i)].next) {
    ids.push_back(symbols_[static_cast<size_t>(i)].id);
  }
}

}  // namespace paddock
