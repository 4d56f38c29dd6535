#include "kv/prefix_tree.h"

#include <algorithm>
#include <bit>

#include "core/fail.h"
#include "core/mix.h"

namespace paddock {
namespace {

constexpr int32_t kCompared = 256;  // newest continuations of a block
// Blocks that left last are remembered: so many for each that can be kept,
constexpr int64_t kRememberedTimes = 16;
constexpr int64_t kLeastRemembered = 4096;    // and at least,
constexpr int64_t kMostRemembered = 1048576;  // at most so many

int32_t remembered(int32_t capacity) {
  return static_cast<int32_t>(
      std::clamp(kRememberedTimes * capacity, kLeastRemembered, kMostRemembered));
}

}  // namespace

// ---- the tree

uint64_t PrefixTree::hash_of_root(int32_t root) {
  return root == kRoot ? 0 : mix(static_cast<uint64_t>(kRoot - root));
}

uint64_t PrefixTree::hash_block(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t hash = before;
  for (const int32_t token : tokens) hash = mix(hash ^ static_cast<uint32_t>(token));
  return hash;
}

PrefixTree::PrefixTree(int32_t capacity, int32_t block_size, int32_t n_layers,
                       std::unique_ptr<ReclaimPolicy> policy, BlockHash hash)
    : block_size_(block_size),
      n_layers_(n_layers),
      hash_(hash),
      absent_(n_layers),
      order_(std::move(policy), capacity),
      departed_(remembered(capacity)) {
  const auto room = make_room(capacity, std::vector(n_layers, Visibility{0, kUnlimited}));
  swap_with(*room);
  seen_.swap(room->seen);
  roots_children_.swap(room->roots_children);
}

std::unique_ptr<PrefixTree::Room> PrefixTree::make_room(int32_t capacity,
                                                        std::vector<Visibility> seen) const {
  auto room = std::make_unique<Room>();
  const auto n = static_cast<size_t>(capacity);
  room->nodes.resize(n);
  room->tokens.resize(n * block_size_);
  room->pages.assign(n * n_layers_, -1);
  room->buckets.assign(std::bit_ceil(n + 1), -1);
  room->free.reserve(n);
  for (int32_t i = capacity; i-- > 0;) room->free.push_back(i);
  room->order = ReclaimOrder::Room(capacity);
  if (remembered(capacity) != departed_.asked_for()) {
    room->departed = RecentHashes<Departure>(remembered(capacity));
  }
  room->roots_children.assign(seen.size() / n_layers_, -1);
  room->seen = std::move(seen);
  return room;
}

void PrefixTree::swap_with(Room& room) {
  nodes_.swap(room.nodes);
  tokens_.swap(room.tokens);
  pages_.swap(room.pages);
  free_.swap(room.free);
  buckets_.swap(room.buckets);
}

void PrefixTree::move_into(std::unique_ptr<Room> room) {
  seen_.swap(room->seen);
  roots_children_.swap(room->roots_children);
  if (room->nodes.size() == nodes_.size()) return;
  swap_with(*room);
  order_.move_into(std::move(room->order));
  if (!room->departed) return;
  room->departed->take_over(departed_);
  std::swap(departed_, *room->departed);
}

std::span<const int32_t> PrefixTree::block_of(std::span<const int32_t> tokens, int64_t i) const {
  return tokens.subspan(static_cast<size_t>(i) * block_size_, block_size_);
}

std::span<const int32_t> PrefixTree::tokens_of(int32_t node) const {
  return block_of(tokens_, node);
}

std::span<int32_t> PrefixTree::pages(int32_t node) {
  return std::span(pages_).subspan(static_cast<size_t>(node) * n_layers_, n_layers_);
}

std::span<const int32_t> PrefixTree::pages(int32_t node) const {
  return std::span(pages_).subspan(static_cast<size_t>(node) * n_layers_, n_layers_);
}

int32_t& PrefixTree::first_child_of(int32_t parent) {
  return parent < 0 ? roots_children_[kRoot - parent] : nodes_[parent].first_child;
}

uint64_t PrefixTree::hash_after(int32_t parent, std::span<const int32_t> tokens) const {
  return hash_(parent < 0 ? hash_of_root(parent) : nodes_[parent].hash, tokens);
}

int32_t PrefixTree::find(int32_t parent, std::span<const int32_t> tokens) const {
  const uint64_t hash = hash_after(parent, tokens);
  int32_t node = buckets_[hash & (buckets_.size() - 1)];
  for (; node >= 0; node = nodes_[node].next) {
    if (nodes_[node].hash != hash || nodes_[node].parent != parent) continue;
    const std::span<const int32_t> its = tokens_of(node);
    if (std::equal(its.begin(), its.end(), tokens.begin(), tokens.end())) break;
  }
  return node;
}

void PrefixTree::extend(int32_t root, std::span<const int32_t> tokens, int64_t max_blocks,
                        bool counts, std::vector<int32_t>& nodes) {
  const int64_t end = std::min(static_cast<int64_t>(tokens.size()) / block_size_, max_blocks);
  const size_t known = nodes.size();
  size_t served = known;  // blocks of the longest prefix of which all is there that is seen
  std::fill(absent_.begin(), absent_.end(), -1);
  int32_t parent = nodes.empty() ? root : nodes.back();
  for (auto i = static_cast<int64_t>(known); i < end; ++i) {
    parent = find(parent, block_of(tokens, i));
    if (parent < 0) break;
    nodes.push_back(parent);
    if (serves(parent, i)) served = nodes.size();
  }
  nodes.resize(served);
  if (!counts) return;
  lookups_ += static_cast<int64_t>(served - known);
  hits_ += static_cast<int64_t>(served - known);
}

bool PrefixTree::serves(int32_t node, int64_t i) {
  bool serves = true;
  for (int32_t layer = 0; layer < n_layers_; ++layer) {
    const Visibility& v = seen_[root_of(node) * n_layers_ + layer];
    const bool is_lost = absent_[layer] >= 0 && absent_[layer] * block_size_ < v.sinks;
    if (pages(node)[layer] < 0 && !is_lost) absent_[layer] = i;  // a sink lost stays lost
    if (absent_[layer] < 0) continue;
    serves = serves && is_past(v, (i + 1) * block_size_, absent_[layer] * block_size_, block_size_);
  }
  return serves;
}

PrefixMiss PrefixTree::ask(int32_t root, std::span<const int32_t> tokens, int64_t max_blocks,
                           std::span<const int32_t> nodes, bool counts) {
  const auto i = static_cast<int64_t>(nodes.size());
  if (i >= std::min(static_cast<int64_t>(tokens.size()) / block_size_, max_blocks)) return {};
  const int32_t parent = nodes.empty() ? root : nodes.back();
  const auto block = block_of(tokens, i);
  lookups_ += counts ? 1 : 0;
  Departure* departure = departed_.find(hash_after(parent, block));
  if (counts && departure != nullptr && departure->reason != MissReason::kSettings &&
      !departure->is_regretted) {
    departure->is_regretted = true;
    ++regrets_;
  }
  return why_missing(root, parent, tokens.first((i + 1) * block_size_), departure);
}

bool PrefixTree::is_elsewhere(int32_t root, std::span<const int32_t> tokens) const {
  for (size_t other = 0; other < roots_children_.size(); ++other) {
    int32_t node = kRoot - static_cast<int32_t>(other);
    if (node == root) continue;
    size_t first = 0;
    for (; first < tokens.size(); first += block_size_) {
      node = find(node, tokens.subspan(first, block_size_));
      if (node < 0) break;
    }
    if (first == tokens.size()) return true;
  }
  return false;
}

PrefixMiss PrefixTree::why_missing(int32_t root, int32_t parent, std::span<const int32_t> text,
                                   const Departure* departure) const {
  const auto tokens = text.last(block_size_);
  const auto position = static_cast<int64_t>(text.size()) - block_size_;
  PrefixMiss miss;
  miss.position = position;
  if (departure != nullptr) {
    miss.reason = departure->reason;
    miss.step = departure->step;
    miss.request = departure->request;
    return miss;
  }
  if (find(parent, tokens) >= 0) {  // but not all that is seen behind it
    miss.reason = MissReason::kTrimmed;
    return miss;
  }
  if (is_elsewhere(root, text)) {
    miss.reason = MissReason::kSettings;
    return miss;
  }
  int64_t common = 0;
  int32_t child = parent < 0 ? roots_children_[kRoot - parent] : nodes_[parent].first_child;
  for (int32_t i = 0; child >= 0 && i < kCompared; ++i, child = nodes_[child].elder) {
    const std::span<const int32_t> its = tokens_of(child);
    const auto end = std::mismatch(its.begin(), its.end(), tokens.begin()).first;
    common = std::max<int64_t>(common, end - its.begin());
  }
  if (position + common == 0) {
    miss.reason = MissReason::kFirstSeen;
  } else {
    miss.reason = MissReason::kDiffers;
    miss.differs_at = position + common;
  }
  return miss;
}

int32_t PrefixTree::insert(int32_t parent, std::span<const int32_t> tokens) {
  if (free_.empty()) return -1;
  const int32_t node = free_.back();
  free_.pop_back();
  Node& n = nodes_[node];
  n = {};
  n.used = true;
  n.locks = 1;
  n.parent = parent;
  n.depth = parent < 0 ? 0 : nodes_[parent].depth + 1;
  n.root = parent < 0 ? parent : nodes_[parent].root;
  n.hash = hash_after(parent, tokens);
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + int64_t{node} * block_size_);
  const std::span<int32_t> none = pages(node);
  std::fill(none.begin(), none.end(), -1);
  departed_.take(n.hash);
  int32_t& bucket = buckets_[n.hash & (buckets_.size() - 1)];
  n.next = bucket;
  bucket = node;
  int32_t& first = first_child_of(parent);
  n.elder = first;
  if (first >= 0) nodes_[first].younger = node;
  first = node;
  return node;
}

CachedBlock PrefixTree::cached(int32_t node) const {
  const Node& n = nodes_[node];
  return {node, n.depth, n.prompts, n.last_use, n.hash};
}

void PrefixTree::lock(int32_t node, bool is_prompt) {
  nodes_[node].prompts += is_prompt ? 1 : 0;
  if (nodes_[node].locks++ == 0) order_.on_use(node);
}

void PrefixTree::unlock(int32_t node, int64_t step) {
  Node& n = nodes_[node];
  n.last_use = step;
  if (--n.locks == 0) order_.on_release(cached(node), n.first_child < 0);
}

int32_t PrefixTree::leaf_below(int32_t node) const {
  while (nodes_[node].first_child >= 0) node = nodes_[node].first_child;
  return node;
}

bool PrefixTree::is_void(int32_t node) const {
  const std::span<const int32_t> its = pages(node);
  return order_.is_leaf(node) &&
         std::all_of(its.begin(), its.end(), [](int32_t p) { return p < 0; });
}

void PrefixTree::note_page_gone(int32_t node, const Departure& how) {
  departed_.add(nodes_[node].hash, how);
}

void PrefixTree::take_out(int32_t node, const Departure* how) {
  order_.on_removed(node);
  if (how != nullptr) departed_.add(nodes_[node].hash, *how);
  unlink(node);
  const int32_t parent = nodes_[node].parent;
  if (parent >= 0 && nodes_[parent].first_child < 0 && nodes_[parent].locks == 0) {
    order_.on_leaf(cached(parent));
  }
  nodes_[node].used = false;
  free_.push_back(node);
}

void PrefixTree::unlink(int32_t node) {
  const Node& n = nodes_[node];
  int32_t* at = &buckets_[n.hash & (buckets_.size() - 1)];
  while (*at != node) at = &nodes_[*at].next;
  *at = n.next;
  if (n.elder >= 0) nodes_[n.elder].younger = n.younger;
  (n.younger >= 0 ? nodes_[n.younger].elder : first_child_of(n.parent)) = n.elder;
}

void PrefixTree::check_integrity() const {
  int32_t unlocked = 0;
  for (int32_t i = 0; i < static_cast<int32_t>(nodes_.size()); ++i) {
    const Node& n = nodes_[i];
    if (!n.used) continue;
    unlocked += n.locks == 0 ? 1 : 0;
    if (order_.is_leaf(i) != (n.locks == 0 && n.first_child < 0)) {
      fail(ErrorCode::kInternal, "whether a kept block at depth {} may leave is not known",
           n.depth);
    }
    const bool is_orphan =
        n.parent >= 0 && (!nodes_[n.parent].used || nodes_[n.parent].depth + 1 != n.depth ||
                          nodes_[n.parent].root != n.root || nodes_[n.parent].locks < n.locks);
    if (is_orphan || find(n.parent, tokens_of(i)) != i) {
      fail(ErrorCode::kInternal, "a kept block at depth {} is not where its prefix says", n.depth);
    }
  }
  if (unlocked != order_.n_cached()) {
    fail(ErrorCode::kInternal, "{} kept blocks are unlocked, {} may leave", unlocked,
         order_.n_cached());
  }
}

}  // namespace paddock
