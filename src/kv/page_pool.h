// Page ids and their states. The bytes belong to the backend; here are only numbers.
//
// Pages may be of several sizes (classes, see KvLayout), all multiples of one unit; a page's id is
// the unit at which it begins. The budget is cut into equal slabs. A slab serves one class at a
// time and goes back to the common stock as soon as none of its pages is in use, so that no split
// of the budget between classes is fixed. With one size a slab is one page: every page can be used,
// and ids are 0, 1, 2 and so on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace paddock {

/// Reference-counted. No allocation after the constructor.
class PagePool {
 public:
  /// `class_units`: units in a page of each class. What is left of n_units beside whole slabs is
  /// not used.
  PagePool(int32_t n_units, std::span<const int32_t> class_units);

  int32_t allocate(int32_t page_class);  // a page with one reference, or -1
  void retain(int32_t page) { ++references_[page]; }
  bool release(int32_t page);  // true if that was the last reference: the page is free
  int32_t references(int32_t page) const { return references_[page]; }

  /// Marks a page that would be released if others were short. Releasing it takes the mark away.
  void set_reclaimable(int32_t page, bool is_reclaimable);
  bool is_reclaimable(int32_t page) const { return reclaimable_[page] != 0; }

  /// So many units may be in use from now on, n_units() at most: slabs beyond them are withheld, at
  /// once where they are empty, else as soon as they are. Those that were come back.
  void set_limit(int32_t n_units);
  int32_t limit() const { return limit_; }
  /// Slabs in use that are still to be withheld when they are empty.
  int32_t slabs_to_withhold() const { return std::max(0, slabs_beyond_limit()); }
  /// Whether counts[c] pages of each class c can be allocated, one after another: exactly.
  bool fits(std::span<const int64_t> counts) const;
  /// Whether they could be once every page that is marked were released.
  bool fits_after_reclaim(std::span<const int64_t> counts) const;

  int32_t n_units() const { return static_cast<int32_t>(references_.size()); }
  int32_t used_units() const { return used_units_; }                // in pages
  int32_t reclaimable_units() const { return reclaimable_units_; }  // of marked pages
  /// fn(unit, n, is_withheld) for units that have been withheld, or have come back, since the last
  /// call; neighbours together.
  template <typename Fn>
  void tell_withheld(const Fn& fn);
  /// Error kInternal if slabs and sums are not what pages say.
  void check_integrity() const;

 private:
  static constexpr int32_t kInStock = -1, kWithheld = -2;
  struct Slab {
    int32_t page_class = kInStock;    // or kWithheld
    bool is_told = false;             // tell_withheld() has said that it is withheld
    int32_t used = 0;                 // of its pages
    int32_t reclaimable = 0;          // of the used ones
    int32_t first_free = -1;          // page; more by next_free_
    int32_t before = -1, after = -1;  // among slabs of its class with free and with used pages
  };
  struct Class {
    int32_t units = 0;  // of a page
    int32_t per_slab = 0;
    int32_t first_partial = -1;  // slab with free pages
    // Pages of this class that can be had: now, as they are free in its slabs, and then, if all
    // that is reclaimable were reclaimed, too. A slab in which nothing else is used would be empty
    // then, and its units anybody's: it counts once in emptied_, and no page of it here.
    int64_t free_now = 0, free_then = 0;
  };
  bool fits(std::span<const int64_t> counts, int64_t Class::*free, int64_t stock) const;
  int32_t slab_of(int32_t page) const { return page / slab_units_; }
  /// Of those that are not withheld; below 0: so many may come back.
  int32_t slabs_beyond_limit() const {
    return static_cast<int32_t>(slabs_.size() - withheld_.size()) - limit_ / slab_units_;
  }
  void open_slab(int32_t slab, int32_t page_class);
  /// Lets `edit` change a slab in use and carries all that depends on it along.
  template <typename Edit>
  void change(int32_t slab, const Edit& edit);
  void count(const Slab& slab, int32_t sign);
  void link(int32_t slab);
  void unlink(int32_t slab);

  int32_t slab_units_ = 1;
  int32_t limit_ = 0, used_units_ = 0, reclaimable_units_ = 0;
  std::vector<int32_t> references_;  // [n_units] at the units where pages begin, like the next two
  std::vector<uint8_t> reclaimable_;
  std::vector<int32_t> next_free_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> stock_;     // slabs without a class
  std::vector<int32_t> withheld_;  // likewise, beyond the limit
  int64_t emptied_ = 0;            // slabs in use that are empty once all is reclaimed
  std::vector<Class> classes_;
  /// [n_classes] free pages now and then, as check_integrity() counts them: kept, so that looking
  /// takes no memory the second time.
  mutable std::vector<std::pair<int64_t, int64_t>> free_counted_;
};

template <typename Fn>
void PagePool::tell_withheld(const Fn& fn) {
  const auto is_withheld = [&](size_t slab) { return slabs_[slab].page_class == kWithheld; };
  for (size_t slab = 0; slab < slabs_.size();) {
    const size_t first = slab;
    const bool is = is_withheld(first);
    while (slab < slabs_.size() && is_withheld(slab) == is && slabs_[slab].is_told != is) {
      slabs_[slab++].is_told = is;
    }
    const auto units = static_cast<int32_t>(slab - first) * slab_units_;
    if (units > 0) fn(static_cast<int32_t>(first) * slab_units_, units, is);
    if (units == 0) ++slab;
  }
}

}  // namespace paddock
