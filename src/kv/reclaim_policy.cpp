#include "kv/reclaim_policy.h"

#include <fmt/format.h>

#include "core/fail.h"
#include "core/names.h"

namespace paddock {
namespace {

struct NamedOrder {
  const char* name;
  std::unique_ptr<ReclaimPolicy> (*make)();  // null: ReclaimOrder has it itself
};
constexpr NamedOrder kOrders[] = {{"lru", nullptr}, {"s3fifo", make_s3fifo}, {"depth", make_depth}};

}  // namespace

ReclaimPolicy::~ReclaimPolicy() = default;
void ReclaimPolicy::reserve(int32_t) {}

std::vector<std::string> reclaim_names() { return names_of(kOrders); }

std::unique_ptr<ReclaimPolicy> make_reclaim_policy(std::string_view name) {
  for (const NamedOrder& order : kOrders) {
    if (name == order.name) return order.make == nullptr ? nullptr : order.make();
  }
  fail(ErrorCode::kInvalidArgument, "kv.reclaim is '{}'; it must be {}", name,
       one_of(reclaim_names()));
}

// ---- lists

void BlockLists::reserve(int32_t n_blocks) {
  links_.assign(static_cast<size_t>(n_lists_ + n_blocks), {});
  sizes_.assign(static_cast<size_t>(n_lists_), 0);
  for (int32_t list = 0; list < n_lists_; ++list) links_[list] = {list, list, list};
}

void BlockLists::push_back(int32_t list, int32_t block) {
  remove(block);
  const int32_t slot = n_lists_ + block;
  const int32_t newest = links_[list].before;
  links_[slot] = {newest, list, list};
  links_[newest].after = slot;
  links_[list].before = slot;
  ++sizes_[list];
}

void BlockLists::remove(int32_t block) {
  const Link link = links_[n_lists_ + block];
  if (link.list < 0) return;
  links_[link.before].after = link.after;
  links_[link.after].before = link.before;
  links_[n_lists_ + block] = {};
  --sizes_[link.list];
}

int32_t BlockLists::front(int32_t list) const {
  return sizes_[list] == 0 ? -1 : links_[list].after - n_lists_;
}

// ---- a policy's answers, checked

ReclaimOrder::ReclaimOrder(std::unique_ptr<ReclaimPolicy> policy, int32_t n_blocks)
    : policy_(std::move(policy)), room_(n_blocks) {
  if (policy_ == nullptr) return;
  name_ = ask_host("a reclaim policy's name()", [&] { return policy_->name(); });
  ask_host(fmt::format("reclaim policy '{}'", name_), [&] { policy_->reserve(n_blocks); });
}

template <typename... Args>
void ReclaimOrder::violation(const char* format, const Args&... args) noexcept {
  ++violations_;
  try {
    last_violation_ =
        fmt::format("reclaim policy '{}': {}", name_, fmt::format(fmt::runtime(format), args...));
  } catch (...) {  // no memory for the words
  }
}

template <typename Hook>
bool ReclaimOrder::tell(const Hook& hook) noexcept {
  if (policy_ == nullptr) return false;
  try {
    hook();
    return true;
  } catch (const std::exception& e) {
    violation("threw: {}", e.what());
  } catch (...) {
    violation("threw");
  }
  return false;
}

void ReclaimOrder::move_into(Room room) {
  room_ = std::move(room);
  const auto n_blocks = static_cast<int32_t>(room_.is_leaf.size());
  // One that could not make room for so many must not hear of them.
  if (!tell([&] { policy_->reserve(n_blocks); })) policy_ = nullptr;
}

void ReclaimOrder::on_release(const CachedBlock& block, bool is_leaf) {
  room_.lists.push_back(0, block.block);
  if (is_leaf) on_leaf(block);
}

void ReclaimOrder::on_leaf(const CachedBlock& block) {
  room_.is_leaf[block.block] = 1;
  tell([&] { policy_->on_leaf(block); });
}

void ReclaimOrder::on_use(int32_t block) {
  room_.lists.remove(block);
  if (room_.is_leaf[block] == 0) return;
  room_.is_leaf[block] = 0;
  tell([&] { policy_->on_use(block); });
}

void ReclaimOrder::on_removed(int32_t block) {
  room_.lists.remove(block);
  room_.is_leaf[block] = 0;
  tell([&] { policy_->on_removed(block); });
}

int32_t ReclaimOrder::next() {
  int32_t block = -1;
  if (tell([&] { block = policy_->next(); })) {
    const bool known = block >= 0 && block < static_cast<int32_t>(room_.is_leaf.size());
    if (known && room_.is_leaf[block] != 0) return block;
    violation("block {} may not leave", block);
  }
  return room_.lists.front(0);
}

}  // namespace paddock
