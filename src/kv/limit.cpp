// How much of the pool may be in use: less than there is, where the host lowered its budget.
//
// There are two limits. The one that was set, Impl::limit, is what free_pages() and admission go
// by. The pool's own says which pages it gives out. Where tables list more than was set, it cannot
// be that low yet: it is as high as what they list and comes down as they let go, so that pages
// that leave are not given out again. `owed` pages are an exception: sequences under elastic rules
// have been promised them up to the length where their budgets can fall.
#include <algorithm>

#include "kv/cache_impl.h"

namespace paddock {

void CacheManager::set_limit(int64_t pages) {
  const std::lock_guard lock(impl_->mutex);
  impl_->limit = static_cast<int32_t>(std::clamp<int64_t>(pages, 0, impl_->config.n_pages));
  if (impl_->is_observed()) impl_->config.observer->limited(impl_->limit);
  if (impl_->limit <= impl_->pool.limit()) return;
  impl_->pool.set_limit(impl_->limit);
  impl_->tell_withheld();
}

void CacheManager::Impl::tell_withheld() {
  pool.tell_withheld([&](int32_t page, int32_t n, bool is_withheld) {
    if (config.on_withheld) config.on_withheld(page, n, is_withheld);
  });
}

int64_t CacheManager::limit() const { return impl_->limit; }

bool CacheManager::is_within_limit() const {
  return impl_->pool.limit() == impl_->limit && impl_->pool.slabs_to_withhold() == 0;
}

void CacheManager::keep_to_limit(int64_t owed) {
  Impl& cache = *impl_;
  const std::lock_guard lock(cache.mutex);
  const int64_t listed = int64_t{cache.pool.used_units()} - cache.pool.reclaimable_units();
  const int64_t now = std::min<int64_t>(cache.pool.limit(), listed + owed);
  cache.pool.set_limit(static_cast<int32_t>(std::max<int64_t>(cache.limit, now)));
  cache.needing = 0;
  while (cache.pool.slabs_to_withhold() > 0 && cache.pool.reclaimable_units() > 0) cache.reclaim();
  cache.tell_withheld();
}

int64_t CacheManager::pages_beyond_limit() const {
  return int64_t{impl_->pool.limit()} - impl_->limit;
}

}  // namespace paddock
