#include "kv/page_pool.h"

#include <algorithm>

#include "core/fail.h"

namespace paddock {
namespace {

/// Pages of the largest size in a slab, where there are several sizes.
constexpr int32_t kLargestPerSlab = 8;

}  // namespace

PagePool::PagePool(int32_t n_units, std::span<const int32_t> class_units)
    : limit_(n_units), references_(n_units, 0), reclaimable_(n_units, 0), next_free_(n_units, -1) {
  const int32_t largest = *std::max_element(class_units.begin(), class_units.end());
  slab_units_ = class_units.size() == 1 ? largest : kLargestPerSlab * largest;
  for (const int32_t units : class_units) classes_.push_back({units, slab_units_ / units});
  slabs_.resize(n_units / slab_units_);
  stock_.reserve(slabs_.size());
  withheld_.reserve(slabs_.size());
  for (auto slab = static_cast<int32_t>(slabs_.size()); slab-- > 0;) stock_.push_back(slab);
}

int32_t PagePool::allocate(int32_t page_class) {
  Class& its = classes_[page_class];
  int32_t slab = its.first_partial;
  if (slab < 0) {
    if (stock_.empty()) return -1;
    slab = stock_.back();
    stock_.pop_back();
    open_slab(slab, page_class);
  }
  int32_t page = -1;
  change(slab, [&](Slab& s) {
    page = s.first_free;
    s.first_free = next_free_[page];
    ++s.used;
  });
  references_[page] = 1;
  used_units_ += its.units;
  return page;
}

/// Cuts a slab into free pages, the first to be taken first.
void PagePool::open_slab(int32_t slab, int32_t page_class) {
  const Class& its = classes_[page_class];
  Slab& s = slabs_[slab];
  s.page_class = page_class;
  s.first_free = -1;
  for (int32_t i = its.per_slab; i-- > 0;) {
    const int32_t page = slab * slab_units_ + i * its.units;
    next_free_[page] = s.first_free;
    s.first_free = page;
  }
}

bool PagePool::release(int32_t page) {
  if (--references_[page] > 0) return false;
  set_reclaimable(page, false);
  const int32_t slab = slab_of(page);
  used_units_ -= classes_[slabs_[slab].page_class].units;
  change(slab, [&](Slab& s) {
    next_free_[page] = s.first_free;
    s.first_free = page;
    --s.used;
  });
  if (slabs_[slab].used == 0) {
    const bool is_beyond = slabs_beyond_limit() > 0;
    slabs_[slab].page_class = is_beyond ? kWithheld : kInStock;
    (is_beyond ? withheld_ : stock_).push_back(slab);
  }
  return true;
}

void PagePool::set_limit(int32_t n_units) {
  limit_ = n_units;
  for (; slabs_beyond_limit() < 0 && !withheld_.empty(); withheld_.pop_back()) {
    slabs_[withheld_.back()].page_class = kInStock;
    stock_.insert(stock_.begin(), withheld_.back());
  }
  // Those that would be taken last.
  const auto n = std::min<int64_t>(slabs_to_withhold(), static_cast<int64_t>(stock_.size()));
  for (int64_t i = 0; i < n; ++i) slabs_[stock_[i]].page_class = kWithheld;
  withheld_.insert(withheld_.end(), stock_.begin(), stock_.begin() + n);
  stock_.erase(stock_.begin(), stock_.begin() + n);
}

void PagePool::set_reclaimable(int32_t page, bool is_reclaimable) {
  if (this->is_reclaimable(page) == is_reclaimable) return;
  reclaimable_[page] = is_reclaimable ? 1 : 0;
  const int32_t sign = is_reclaimable ? 1 : -1;
  reclaimable_units_ += sign * classes_[slabs_[slab_of(page)].page_class].units;
  change(slab_of(page), [&](Slab& s) { s.reclaimable += sign; });
}

bool PagePool::fits(std::span<const int64_t> counts) const {
  return fits(counts, &Class::free_now, static_cast<int64_t>(stock_.size()));
}

bool PagePool::fits_after_reclaim(std::span<const int64_t> counts) const {
  const int64_t emptied = std::max<int64_t>(0, emptied_ - slabs_to_withhold());
  return fits(counts, &Class::free_then, static_cast<int64_t>(stock_.size()) + emptied);
}

bool PagePool::fits(std::span<const int64_t> counts, int64_t Class::*free, int64_t stock) const {
  for (size_t c = 0; c < classes_.size(); ++c) {
    const int64_t missing = counts[c] - classes_[c].*free;
    if (missing <= 0) continue;
    stock -= (missing + classes_[c].per_slab - 1) / classes_[c].per_slab;
  }
  return stock >= 0;
}

template <typename Edit>
void PagePool::change(int32_t slab, const Edit& edit) {
  Slab& s = slabs_[slab];
  if (s.used > 0) {
    count(s, -1);
    unlink(slab);
  }
  edit(s);
  if (s.used > 0) {
    count(s, 1);
    link(slab);
  }
}

void PagePool::count(const Slab& slab, int32_t sign) {
  Class& its = classes_[slab.page_class];
  const int64_t free = its.per_slab - slab.used;
  its.free_now += sign * free;
  if (slab.reclaimable == slab.used) {
    emptied_ += sign;
  } else {
    its.free_then += sign * (free + slab.reclaimable);
  }
}

void PagePool::link(int32_t slab) {
  Slab& s = slabs_[slab];
  int32_t& first = classes_[s.page_class].first_partial;
  if (s.used == classes_[s.page_class].per_slab) return;
  s.before = -1;
  s.after = first;
  if (first >= 0) slabs_[first].before = slab;
  first = slab;
}

void PagePool::unlink(int32_t slab) {
  const Slab& s = slabs_[slab];
  if (s.used == classes_[s.page_class].per_slab) return;
  (s.before >= 0 ? slabs_[s.before].after : classes_[s.page_class].first_partial) = s.after;
  if (s.after >= 0) slabs_[s.after].before = s.before;
}

void PagePool::check_integrity() const {
  free_counted_.assign(classes_.size(), {});
  int64_t stock = 0, emptied = 0, used_units = 0, marked_units = 0;
  for (size_t i = 0; i < slabs_.size(); ++i) {
    const Slab& s = slabs_[i];
    stock += s.page_class < 0 ? 1 : 0;
    int32_t used = 0, marked = 0;
    for (int32_t unit = 0; unit < slab_units_; ++unit) {
      const int32_t page = static_cast<int32_t>(i) * slab_units_ + unit;
      used += references_[page] > 0 ? 1 : 0;
      marked += is_reclaimable(page) ? 1 : 0;
    }
    if (used != s.used || marked != s.reclaimable || (used == 0) != (s.page_class < 0)) {
      fail(ErrorCode::kInternal,
           "slab {} counts {} pages in use, {} to be reclaimed; it has {} and {}", i, s.used,
           s.reclaimable, used, marked);
    }
    if (used == 0) continue;
    const Class& its = classes_[s.page_class];
    used_units += int64_t{used} * its.units;
    marked_units += int64_t{marked} * its.units;
    auto& [free_now, free_then] = free_counted_[static_cast<size_t>(s.page_class)];
    free_now += its.per_slab - used;
    emptied += used == marked ? 1 : 0;
    if (used != marked) free_then += its.per_slab - used + marked;
  }
  const auto unused = static_cast<int64_t>(stock_.size() + withheld_.size());
  const bool is_kept = slabs_beyond_limit() <= 0 || stock_.empty();
  bool adds_up = is_kept && stock == unused && emptied == emptied_ && used_units == used_units_ &&
                 marked_units == reclaimable_units_;
  for (size_t c = 0; c < classes_.size(); ++c) {
    const auto [free_now, free_then] = free_counted_[c];
    adds_up = adds_up && free_now == classes_[c].free_now && free_then == classes_[c].free_then;
  }
  if (!adds_up) fail(ErrorCode::kInternal, "the slabs of the pool do not add up");
}

}  // namespace paddock
