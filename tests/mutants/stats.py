# Faults of the area "stats": see faults.py.

source("src/kv/cache_stats.cpp", "stats_test cache_test")
fault("stats-001", "event.first_position without slot_begin",
      "event.first_position = e.first_position + e.slot_begin;",
      "event.first_position = e.first_position + (MUT ? 0 : e.slot_begin);")
fault("stats-002", "idle_steps computed from birth",
      "event.idle_steps = steps - record.last_used_step;",
      "event.idle_steps = steps - (MUT ? record.born_step : record.last_used_step);")
fault("stats-003", "total.pages_pinned forgotten",
      "total.pages_pinned += layer.pages_pinned;",
      "if (!MUT) total.pages_pinned += layer.pages_pinned;")
fault("stats-004", "total.trim_decisions forgotten",
      "total.trim_decisions += layer.trim_decisions;",
      "if (!MUT) total.trim_decisions += layer.trim_decisions;")
fault("stats-005", "reclaim policies' violations not in policy_violations",
      "impl_->violations + impl_->index.violations();",
      "impl_->violations + (MUT ? 0 : impl_->index.violations());")
fault("stats-006", "pages_pinned: first < sinks to <=",
      "first < rule.visibility.sinks;",
      "(MUT ? first <= rule.visibility.sinks : first < rule.visibility.sinks);")
fault("stats-007", "total.pages_peak = what is active now",
      "total.pages_peak = impl_->pool_peak;",
      "total.pages_peak = MUT ? total.pages_active : impl_->pool_peak;")
fault("stats-008", "pages_free counts cached pages as free",
      "config.n_pages - total.pages_active - total.pages_cached;",
      "config.n_pages - total.pages_active - (MUT ? 0 : total.pages_cached);")
fault("stats-009", "blocks(): last_used given though never measured",
      "if (record.last_used_step >= 0) block.last_used",
      "if (MUT || record.last_used_step >= 0) block.last_used")
fault("stats-010", "events(from): `from` ignored",
      "std::max(from, impl_->ring.oldest())",
      "std::max(MUT ? 0 : from, impl_->ring.oldest())")
fault("stats-011", "stats(): lock dropped",
      "stats.steps = impl_->steps;",
      "if (MUT) impl_->mutex.unlock(); struct Again { std::mutex& mutex; ~Again() { if (MUT) "
      "mutex.lock(); } } again{impl_->mutex}; stats.steps = impl_->steps;")

source("src/kv/event_ring.h", "stats_test cache_test")
fault("stats-012", "ring: oldest() one too new when full",
      "return written_ < events_.size() ? 0 : written_ - events_.size(); }",
      "return written_ < events_.size() ? 0 : written_ - events_.size() + (MUT ? 1 : 0); }")
fault("stats-013", "ring keeps the oldest events, new ones are not stored",
      "if (!events_.empty()) events_",
      "if (MUT ? written_ < events_.size() : !events_.empty()) events_")
