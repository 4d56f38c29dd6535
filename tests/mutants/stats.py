# Faults of the area "stats": see faults.py.

source("src/kv/cache_stats.cpp", "stats_test cache_test")
same("stats-001", "event.first_position without slot_begin",
      "event.first_position = e.first_position + e.slot_begin;",
      "event.first_position = e.first_position + (MUT ? 0 : e.slot_begin);",
     "Parts that begin inside a page leave with the part before them, which is the one that is logged")
fault("stats-002", "idle_steps computed from birth",
      "event.idle_steps = steps - record.last_used_step;",
      "event.idle_steps = steps - (MUT ? record.born_step : record.last_used_step);")
fault("stats-003", "total.pages_pinned forgotten",
      "total.pages_pinned += pages_pinned;",
      "if (!MUT) total.pages_pinned += pages_pinned;")
fault("stats-004", "total.trim_decisions forgotten",
      "total.trim_decisions += trim_decisions;",
      "if (!MUT) total.trim_decisions += trim_decisions;")
fault("stats-005", "reclaim policies' violations not in policy_violations",
      "impl_->violations + impl_->tree.violations();",
      "impl_->violations + (MUT ? 0 : impl_->tree.violations());")
fault("stats-006", "pages_pinned: first < sinks to <=",
      "first < rule.visibility.sinks;",
      "(MUT ? first <= rule.visibility.sinks : first < rule.visibility.sinks);")
fault("stats-007", "total.pages_peak = what is active now",
      "stats.total.pages_peak = impl_->pool_peak;",
      "stats.total.pages_peak = MUT ? stats.total.pages_active : impl_->pool_peak;")
fault("stats-008", "pages_free counts cached pages as free",
      "stats.pages_free = std::max<int64_t>(0, free_pages());",
      "stats.pages_free = std::max<int64_t>(0, free_pages()) + (MUT ? stats.total.pages_cached : 0);")
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
fault("stats-014", "pages_per_block is 1",
      "stats.pages_per_block = «block_pages()»;",
      "1")
fault("stats-015", "bytes count cached pages",
      "layer.bytes = «count.active» * config.layout.group(i).page_bytes;",
      "(count.active + count.cached)")
same("stats-016", "tokens_peak counts closed sequences",
     "if («!sequence.live») continue; const LayerRule& rule = sequence.rule(i);",
     "false",
     "The tables of a sequence that is closed are empty")
fault("stats-017", "total.tokens_peak is a sum",
      "total.tokens_peak = «std::max(total.tokens_peak, tokens_peak)»;",
      "total.tokens_peak + tokens_peak")
fault("stats-018", "total.pages_cached forgotten",
      "«total.pages_cached += pages_cached;»",
      "")
fault("stats-019", "total.tokens_resident forgotten",
      "«total.tokens_resident += tokens_resident;»",
      "")
fault("stats-020", "total.bytes forgotten",
      "«total.bytes += bytes;»",
      "")
fault("stats-021", "total.pages_allocated forgotten",
      "«total.pages_allocated += pages_allocated;»",
      "")
fault("stats-022", "total.tokens_read forgotten",
      "«total.tokens_read += tokens_read;»",
      "")
fault("stats-023", "total.pages_removed forgotten",
      "«total.pages_removed[r] += pages_removed[r];»",
      "")
fault("stats-024", "what a reclaim policy did last is not told",
      "stats.last_violation = «impl_->last_violation.empty()» ?",
      "false")
fault("stats-025", "protected blocks of a trim are not pinned",
      "if (sink || «(rule.trims() && sequence.protects(sequence.layers[i].schedule, first, end))») {",
      "false")
fault("stats-026", "blocks of a rule without window are pinned below its sinks",
      "const bool sink = «rule.has_window()» && first",
      "true")
fault("stats-027", "an event tells the length of the first position",
      "event.length = «sequence.length»; event.age_steps",
      "event.first_position")
fault("stats-028", "an event tells the whole block of a short one",
      "event.n_tokens = «e.slot_end - e.slot_begin»; event.length",
      "config.block_size")
fault("stats-029", "idle_steps of what was never measured is its age",
      "if («record.last_used_step >= 0») event.idle_steps",
      "true")
fault("stats-030", "events are not queued",
      "«queue.push_back({number, event});»",
      "")
fault("stats-031", "events are taken again and again",
      "«impl_->queue.clear();»",
      "")
fault("stats-032", "events of a rule that was replaced have the name of another",
      "event.policy = «rule_names[rule]»;",
      "rule_names.front()")
fault("stats-033", "score and runner-up's score are swapped",
      "event.score = «score»;",
      "runner_up_score")
fault("stats-034", "blocks(): the layer after the last is not refused",
      "if (layer < 0 || «layer >= config.n_layers») {",
      "layer > config.n_layers + 1000")
fault("stats-035", "blocks(): the part after the sinks begins with its page",
      "block.first_position = int64_t{e.first_position} + «e.slot_begin»; block.n_tokens = "
      "e.slot_end - e.slot_begin; block.query_shift",
      "0")
fault("stats-036", "blocks(): queries are never shifted",
      "block.query_shift = «rotations[e.rotation].query_shift»;",
      "0")
fault("stats-037", "blocks(): no cap",
      "block.query_cap = «rotations[e.rotation].query_cap»;",
      "kUnlimited")
fault("stats-038", "blocks(): mass in other units",
      "block.mass = «mass_of(record.mass)»;",
      "static_cast<double>(record.mass) / kNormUnit")
fault("stats-039", "pages_free is that of a pool without the reserved",
      "stats.pool_bytes = «stats.pool_pages * config.layout.unit_bytes()»;",
      "config.layout.unit_bytes()")

source("src/kv/event_ring.h", "stats_test cache_test")
fault("stats-012", "ring: oldest() one too new when full",
      "return written_ < events_.size() ? 0 : written_ - events_.size(); }",
      "return written_ < events_.size() ? 0 : written_ - events_.size() + (MUT ? 1 : 0); }")
fault("stats-013", "ring keeps the oldest events, new ones are not stored",
      "if (!events_.empty()) events_",
      "if (MUT ? written_ < events_.size() : !events_.empty()) events_")

# ---- budgets
source("src/kv/cache_stats.cpp", "stats_test")
fault("stats-040", 'no budget is a budget',
      'if («budget != kUnlimited» && (layer.budget',
      'true')
fault("stats-041", "the budget in force is the last sequence's",
      '(«layer.budget == 0 || budget < layer.budget»)) layer.budget',
      'true', tests='own_rules_test:OwnRules.TheBudget* stats_test')
fault("stats-042", 'pins count among what scores',
      'for (SequenceId id = 0; id < «config.max_sequences»; ++id) {',
      'static_cast<SequenceId>(impl_->sequences.size())')
fault("stats-043", 'positions found count where nothing scores',
      'if («sequence.rule(layer).needs.attention») return',
      'true')
source("src/kv/fall.cpp", "stats_test")
fault("stats-044", 'changes from the second on',
      'impl_->budget_changes.since(«from»);',
      'from + 1')
fault("stats-045", 'a change does not know its removals',
      '.first_event = «cache.ring.written()»};',
      'uint64_t{0}')
fault("stats-046", 'a change does not know from where on scores count',
      '.scored_from = «cache.first_scored(sequence)»,',
      'int64_t{0}')
source("src/kv/reuse.cpp", "stats_test")
fault("stats-047", 'what was found counts as asked',
      '«sequence.scored_from = sequence.length;»',
      '')
source("src/kv/rewind.cpp", "stats_test")
fault("stats-048", 'what was taken back is still found',
      'sequence.scored_from = «std::min(sequence.scored_from, length)»;',
      'sequence.scored_from')

source("src/kv/cache_stats.cpp", "eviction_test:Schedules.LayersMayHave*")
fault("stats-049", "pages of a block count as one each, whatever their size",
      "stats.pages_per_block = «block_pages()»;",
      "config.n_layers")

source("src/report/stats_prometheus.cpp", "stats_test:Printed.*")
fault("stats-050", "Prometheus: the most pages of a layer are those of now",
      "return «l.pages_peak»;",
      "l.pages_active")
fault("stats-051", "Prometheus: the most positions met are those in view",
      "return «l.tokens_peak»;",
      "l.tokens_resident")
fault("stats-052", "Prometheus: the pool's peak is its pages now",
      "«s.total.pages_peak»);",
      "s.total.pages_active")

source("include/paddock/stats.h", "stats_test:Removals.*")
fault("stats-053", "a block that a scored rule drops was not taken by the rule",
      "case RemovalReason::kWindow: case RemovalReason::kPolicyTrim: return «true»;",
      "reason == RemovalReason::kWindow")
fault("stats-113", "what a window passed was chosen by score",
      "kPolicyTrim: return true; case RemovalReason::kCapacity: case RemovalReason::kWindow:",
      "kPolicyTrim: return true; case RemovalReason::kCapacity: case RemovalReason::kWindow: if (MUT) return true; [[fallthrough]];")
source("src/kv/fall.cpp", "stats_test:Budgets.*")
fault("stats-114", "the lift of a session that is parked names a sequence",
      "id.value_or(«-1»)", "0")
source("src/kv/reclaim.cpp", "stats_test:Events.*")
fault("stats-115", "what was only kept leaves a sequence",
      "event.sequence = «-1»;", "0")
source("src/kv/cache_stats.cpp", "stats_test:Stats.*")
fault("stats-116", "what a host protects is not pinned",
      "(rule.trims() && «sequence.protects(sequence.layers[i].schedule, first, end)»)",
      "is_protected(sequence.layers[i].schedule, first, end, sequence.length)")
