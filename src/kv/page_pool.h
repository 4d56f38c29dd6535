// Page ids and their states. The bytes belong to the backend; here are only numbers.
//
// Pages may be of several sizes (classes, see KvLayout), all multiples of one unit; a page's id is
// the unit at which it begins. The budget is cut into equal slabs. A slab serves one class at a
// time and goes back to the common stock as soon as none of its pages is in use, so that no split
// of the budget between classes is fixed. With one size a slab is one page: every page can be used,
// and ids are 0, 1, 2 and so on.
#pragma once

#include <cstdint>
#include <span>
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
  /// Whether counts[c] pages of each class c can be allocated, one after another: exactly.
  bool fits(std::span<const int64_t> counts) const;
  /// Whether they could be once every page that is marked were released.
  bool fits_after_reclaim(std::span<const int64_t> counts) const;

  int32_t n_units() const { return static_cast<int32_t>(references_.size()); }
  int32_t free_units() const { return n_units() - used_units_; }  // in no page
  int32_t reclaimable_units() const { return reclaimable_units_; }  // of marked pages
  /// Error kInternal if slabs and sums are not what pages say.
  void check_integrity() const;

 private:
  struct Slab {
    int32_t page_class = -1;          // -1: in the stock
    int32_t used = 0;                 // of its pages
    int32_t reclaimable = 0;          // of the used ones
    int32_t first_free = -1;          // page; more by next_free_
    int32_t before = -1, after = -1;  // among slabs of its class with free and with used pages
  };
  struct Class {
    int32_t units = 0;  // of a page
    int32_t per_slab = 0;
    int32_t first_partial = -1;  // slab with free pages
    // Free pages in slabs of this class: now, and if what is marked were released. The second
    // leaves out slabs that this would empty, as any class could have these (emptied_).
    int64_t free_now = 0, free_then = 0;
  };
  bool fits(std::span<const int64_t> counts, int64_t Class::*free, int64_t stock) const;
  int32_t slab_of(int32_t page) const { return page / slab_units_; }
  void open_slab(int32_t slab, int32_t page_class);
  /// Lets `edit` change a slab in use and carries all that depends on it along.
  template <typename Edit>
  void change(int32_t slab, const Edit& edit);
  void count(const Slab& slab, int32_t sign);
  void link(int32_t slab);
  void unlink(int32_t slab);

  int32_t slab_units_ = 1;
  int32_t used_units_ = 0, reclaimable_units_ = 0;
  std::vector<int32_t> references_;  // [n_units] at the units where pages begin, like the next two
  std::vector<uint8_t> reclaimable_;
  std::vector<int32_t> next_free_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> stock_;  // slabs without a class
  int64_t emptied_ = 0;         // slabs in use of which all that is used is marked
  std::vector<Class> classes_;
};

}  // namespace paddock
