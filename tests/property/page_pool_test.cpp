// The pool of pages of several sizes against brute force: no two pages overlap, what is said to fit
// fits, slabs go back, and those beyond a limit are not used.
#include "kv/page_pool.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "core/fail.h"
#include "kv/layout.h"

namespace paddock {
namespace {

class PoolAndMap {
 public:
  PoolAndMap(int32_t n_units, std::vector<int32_t> class_units, uint32_t seed, bool resizes)
      : units_(std::move(class_units)),
        random_(seed),
        pool_(n_units, units_),
        resizes_(resizes),
        is_away_(static_cast<size_t>(n_units)) {
    const int32_t largest = *std::max_element(units_.begin(), units_.end());
    slab_units_ = units_.size() == 1 ? largest : 8 * largest;
  }

  void run() {
    int refused = 0;
    const int period = 2 * pool_.n_units() + 30;
    for (int i = 0; i < 4 * period && !testing::Test::HasFailure(); ++i) {
      const auto dice = random_() % 10;
      if (resizes_ && random_() % 12 == 0) resize();
      // Now and then it is mostly filled, now and then mostly emptied.
      const bool fills = i / period % 2 == 0;
      if (dice < (fills ? 7 : 1)) {
        refused += allocate() ? 0 : 1;
      } else if (!pages_.empty() && dice < 8) {
        release();
      } else if (!pages_.empty()) {
        mark();
      }
      pool_.check_integrity();
      if (i % 5 == 0) check_fits();
    }
    EXPECT_GT(refused, 0);
    while (!pages_.empty()) release();
    pool_.check_integrity();
    EXPECT_EQ(pool_.slabs_to_withhold(), 0);
    pool_.set_limit(pool_.n_units());
    hear();
    EXPECT_EQ(std::count(is_away_.begin(), is_away_.end(), true), 0);
    pool_.check_integrity();
    EXPECT_EQ(pool_.limit(), pool_.n_units());
    EXPECT_EQ(pool_.used_units(), 0);
    // All slabs are back: each class could have all of them.
    for (size_t c = 0; c < units_.size(); ++c) {
      std::vector<int64_t> counts(units_.size());
      PagePool copy = pool_;
      while (copy.allocate(static_cast<int32_t>(c)) >= 0) ++counts[c];
      EXPECT_GT(counts[c], 0);
      EXPECT_TRUE(pool_.fits(counts));
      ++counts[c];
      EXPECT_FALSE(pool_.fits(counts));
    }
  }

 private:
  struct Page {
    int32_t page_class = 0;
    int32_t references = 1;
  };

  void resize() {
    pool_.set_limit(static_cast<int32_t>(random_() % (pool_.n_units() + 1)));
    hear();
  }
  /// What is withheld now.
  void hear() {
    pool_.tell_withheld([&](int32_t first, int32_t n, bool is_withheld) {
      EXPECT_GT(n, 0);
      for (int32_t unit = first; unit < first + n; ++unit) {
        EXPECT_NE(is_away_[unit], is_withheld) << "it was told before";
        is_away_[unit] = is_withheld;
      }
    });
    const auto away = std::count(is_away_.begin(), is_away_.end(), true);
    const int32_t whole = pool_.n_units() / slab_units_ * slab_units_;
    const int32_t beyond = whole - pool_.limit() / slab_units_ * slab_units_;
    EXPECT_EQ(away, beyond - pool_.slabs_to_withhold() * slab_units_);
    for (const auto& [page, its] : pages_) EXPECT_FALSE(is_away_[page]);
  }
  /// In slabs of which some page is in use.
  int32_t units_open() const {
    std::set<int32_t> slabs;
    for (const auto& [page, its] : pages_) slabs.insert(page / slab_units_);
    return static_cast<int32_t>(slabs.size()) * slab_units_;
  }

  bool allocate() {
    const auto c = static_cast<int32_t>(random_() % units_.size());
    const int32_t open = units_open();
    const int32_t page = pool_.allocate(c);
    if (page < 0) return false;
    EXPECT_FALSE(is_away_[page]);
    EXPECT_LE(page + units_[c], pool_.n_units());
    const auto next = pages_.lower_bound(page);
    if (next != pages_.end()) {
      EXPECT_LE(page + units_[c], next->first);
    }
    if (next != pages_.begin()) {
      const auto& [before, its] = *std::prev(next);
      EXPECT_LE(before + units_[its.page_class], page);
    }
    EXPECT_EQ(pool_.references(page), 1);
    EXPECT_FALSE(pool_.is_reclaimable(page));
    pages_[page] = {c, 1};
    if (units_open() > open) {
      EXPECT_LE(units_open(), pool_.limit());
    }
    return true;
  }

  std::map<int32_t, Page>::iterator some_page() {
    return std::next(pages_.begin(), static_cast<int64_t>(random_() % pages_.size()));
  }

  void release() {
    const auto at = some_page();
    if (random_() % 4 == 0) {
      pool_.retain(at->first);
      ++at->second.references;
    }
    EXPECT_EQ(pool_.release(at->first), --at->second.references == 0);
    if (at->second.references == 0) pages_.erase(at);
  }

  void mark() {
    const int32_t page = some_page()->first;
    pool_.set_reclaimable(page, random_() % 3 != 0);
  }

  /// Tries it out on a copy.
  static bool try_out(PagePool pool, const std::vector<int64_t>& counts) {
    for (size_t c = 0; c < counts.size(); ++c) {
      for (int64_t i = 0; i < counts[c]; ++i) {
        if (pool.allocate(static_cast<int32_t>(c)) < 0) return false;
      }
    }
    return true;
  }

  void check_fits() {
    std::vector<int64_t> counts;
    for (const int32_t units : units_) {
      const int32_t most = std::max(0, pool_.limit() - pool_.used_units()) / units + 3;
      counts.push_back(static_cast<int64_t>(random_() % most));
    }
    ASSERT_EQ(pool_.fits(counts), try_out(pool_, counts));
    PagePool later = pool_;
    for (const auto& [page, its] : pages_) {
      if (!pool_.is_reclaimable(page)) continue;
      for (int32_t i = 0; i < its.references; ++i) later.release(page);
    }
    later.check_integrity();
    ASSERT_EQ(pool_.fits_after_reclaim(counts), try_out(later, counts));
    int64_t used = 0;
    for (const auto& [page, its] : pages_) used += units_[its.page_class];
    ASSERT_EQ(pool_.used_units(), used);
  }

  std::vector<int32_t> units_;
  std::mt19937 random_;
  PagePool pool_;
  bool resizes_;
  int32_t slab_units_;
  std::vector<bool> is_away_;  // [n_units] as was told
  std::map<int32_t, Page> pages_;
};

TEST(PagePoolProperty, PagesOfAnySizesNeverOverlapAndWhatFitsIsKnown) {
  uint32_t seed = 1;
  for (const std::vector<int32_t>& units : {std::vector<int32_t>{1}, {1, 2}, {3, 2}, {5, 1, 4}}) {
    for (const int32_t slabs : {2, 9, 30}) {
      const int32_t n_units = slabs * 8 * *std::max_element(units.begin(), units.end()) + 3;
      SCOPED_TRACE(fmt::format("{} classes, {} units", units.size(), n_units));
      for (const bool resizes : {false, true}) PoolAndMap(n_units, units, seed++, resizes).run();
      if (HasFailure()) return;
    }
  }
}

TEST(PagePool, WhatWouldBeTakenLastIsWithheldFirst) {
  PagePool pool(6, std::vector<int32_t>{1});
  const int32_t first = pool.allocate(0);
  pool.set_limit(2);
  std::string told;
  const auto hear = [&] {
    told.clear();
    pool.tell_withheld([&](int32_t page, int32_t n, bool is_withheld) {
      told += fmt::format("{}{}+{} ", is_withheld ? "-" : "", page, n);
    });
    return told;
  };
  EXPECT_EQ(hear(), "-2+4 ");
  EXPECT_EQ(pool.allocate(0), 1);
  EXPECT_EQ(pool.allocate(0), -1);
  pool.set_limit(1);
  EXPECT_EQ(pool.limit() - pool.used_units(), -1);
  EXPECT_EQ(pool.slabs_to_withhold(), 1);
  EXPECT_TRUE(pool.fits(std::vector<int64_t>{0}));
  pool.set_reclaimable(1, true);
  pool.set_reclaimable(first, true);
  EXPECT_TRUE(pool.fits_after_reclaim(std::vector<int64_t>{1}));
  EXPECT_FALSE(pool.fits_after_reclaim(std::vector<int64_t>{2}));
  pool.release(1);
  EXPECT_EQ(hear(), "-1+1 ");
  EXPECT_EQ(pool.allocate(0), -1);
  pool.release(first);
  EXPECT_EQ(pool.allocate(0), first);
  pool.set_limit(6);
  EXPECT_EQ(hear(), "1+5 ");
  for (int i = 0; i < 5; ++i) EXPECT_GE(pool.allocate(0), 0);
  EXPECT_EQ(pool.allocate(0), -1);
}

TEST(PagePool, ASlabServesOneSizeUntilItIsEmpty) {
  PagePool pool(16, std::vector<int32_t>{1, 2});  // one slab of 16 units
  const int32_t small = pool.allocate(0);
  EXPECT_EQ(pool.allocate(1), -1);
  pool.release(small);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(pool.allocate(1), 2 * i);
  EXPECT_EQ(pool.allocate(0), -1);
  EXPECT_EQ(pool.limit() - pool.used_units(), 0);
}

TEST(KvLayout, NamesSizesAndTheirUnit) {
  const KvLayout mixed({{96, 0}, {64, 0}, {96, 0}});
  EXPECT_EQ(mixed.unit_bytes(), 32);
  EXPECT_EQ(std::vector<int32_t>(mixed.class_units().begin(), mixed.class_units().end()),
            (std::vector<int32_t>{3, 2}));
  EXPECT_EQ(mixed.group(1).page_class, 1);
  EXPECT_EQ(mixed.group(2).page_class, 0);
  EXPECT_EQ(mixed.page_units(1), 2);
  const PageGeometry geometry{2, 16, 8, DType::kBF16};
  const KvLayout uniform = KvLayout::uniform(3, geometry);
  EXPECT_EQ(uniform.unit_bytes(), geometry.page_bytes());
  EXPECT_EQ(uniform.page_units(2), 1);
  EXPECT_EQ(uniform.group(2).page_bytes, 2 * 2 * 16 * 8 * 2);
}

}  // namespace
}  // namespace paddock
