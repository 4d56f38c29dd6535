# Faults of the area "kv": see faults.py.

source("src/kv/trim.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-001", "observe(): last_used_step not recorded",
      "record.last_used_step = impl_->steps;",
      "if (!MUT) record.last_used_step = impl_->steps;")
fault("kv-002", "observe(): key norm of a block's first token booked on previous block (< to <=)",
      "while (position < table.entries[entry].first_position) --entry;",
      "while (MUT ? entry > 0 && position <= table.entries[entry].first_position : position < "
      "table.entries[entry].first_position) --entry;")
fault("kv-003", "recent_mass is not cleared after a decision where observe is 0",
      "(decides && (rule.schedule.observe == 0 ||",
      "(decides && !MUT && (rule.schedule.observe == 0 ||")
fault("kv-004", "decide(): excess<=0 to <0 (asked when exactly at budget)",
      "if (excess <= 0) return;",
      "if (MUT ? excess < 0 : excess <= 0) return;")
fault("kv-005", "runner-up of an earlier decision not reset",
      "runner_up = -1; named.assign",
      "if (!MUT) runner_up = -1; named.assign")
fault("kv-006", "runner-up score = last victim's score",
      "runner_up_score = victim.score;",
      "runner_up_score = MUT ? choices.back().score : victim.score;")
fault("kv-007", "after a violation blocks named before it are spared by the fallback",
      "choices.clear(); named.assign(view.size(), 0); freed = 0;",
      "choices.clear(); if (!MUT) named.assign(view.size(), 0); freed = 0;")
fault("kv-008", "policy_slow never counted",
      "if (spent > kSlowNanoseconds) ++slow;",
      "if (spent > kSlowNanoseconds && !MUT) ++slow;")
fault("kv-009", "policy_shortfalls never counted",
      "«if (too_few) ++shortfalls;»",
      "")
fault("kv-010", "fallback takes newest instead of oldest blocks",
      "for (size_t i = 0; i < view.size() && freed < excess; ++i) { if (view[i].is_protected",
      "for (size_t k = 0; k < view.size() && freed < excess; ++k) { const size_t i = MUT ? "
      "view.size() - 1 - k : k; if (view[i].is_protected")
fault("kv-011", "dropped_at not set by a trim (truncate then allowed)",
      "table.dropped_at = sequence.length;",
      "if (!MUT) table.dropped_at = sequence.length;")
fault("kv-012", "remove_victims: change not noted (stale device table)",
      "table.note_change(static_cast<size_t>(choice.block));",
      "if (!MUT) table.note_change(static_cast<size_t>(choice.block));")
fault("kv-013", "renumber_rotations: change not noted",
      "if (table.entries[i].rotation != rotation) table.note_change(i);",
      "if (!MUT && table.entries[i].rotation != rotation) table.note_change(i);")
fault("kv-014", "view: key_norm not divided by tokens",
      "block.key_norm = static_cast<double>(record.key_norm) / kNormUnit / block.n_tokens;",
      "block.key_norm = static_cast<double>(record.key_norm) / kNormUnit / (MUT ? 1 : block.n_tokens);")

source("src/kv/cache_manager.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-015", "open(): first_changed of the previous sequence stays",
      "table.first_changed = 0;",
      "if (!MUT) table.first_changed = 0;")
fault("kv-016", "open(): the prompt's end of the previous sequence stays",
      "«sequence.prompt = 0;» sequence.deciding = false;",
      "")
fault("kv-017", "open(): dropped_at of the previous sequence stays",
      "table.tokens = table.most_met = table.dropped_at = 0;",
      "table.tokens = table.most_met = 0; if (!MUT) table.dropped_at = 0;")
fault("kv-018", "close(): event logged for pages that others still hold",
      "if (impl_->pool.references(table.entries[i].page) == 1) { impl_->log",
      "if (MUT || impl_->pool.references(table.entries[i].page) == 1) { impl_->log")
fault("kv-019", "set_prompt() accepts a length that is reached already",
      "if («length <= sequence.length») return; sequence.prompt = length;",
      "false")
fault("kv-020", "pool_peak never updated",
      "impl_->pool_peak = std::max",
      "if (!MUT) impl_->pool_peak = std::max")
fault("kv-021", "layer peak never updated in extend()",
      "count.peak = std::max(count.peak, count.active); }",
      "if (!MUT) count.peak = std::max(count.peak, count.active); }")
fault("kv-022", "keys_met: ramp one too long (tokens_read)",
      "std::clamp(most, first, first + n);",
      "std::clamp(most + (MUT ? 1 : 0), first, first + n);")
fault("kv-023", "window removals not logged",
      "log_removal(id, layer, keep, RemovalReason::kWindow);",
      "if (!MUT) log_removal(id, layer, keep, RemovalReason::kWindow);")
fault("kv-024", "event logged although the page stays for its sinks",
      "if (e.slot_begin != 0) continue; // the page stays for its sinks",
      "if (e.slot_begin != 0 && MUT) log_removal(id, layer, keep, RemovalReason::kWindow); if "
      "(e.slot_begin != 0) continue; // the page stays for its sinks")
fault("kv-025", "append_part: growth of the last entry not noted (stale device table)",
      "table.entries.back().slot_end = static_cast<uint16_t>(end); "
      "«table.note_change(table.entries.size() - 1);»",
      "")
fault("kv-026", "block never used counts as used at 0, not when written",
      "record.last_used = «first»;",
      "0")
fault("kv-027", "set_policies(): kept blocks survive the change",
      "impl_->make_room(impl_->config.n_pages);",
      "if (!MUT) impl_->make_room(impl_->config.n_pages);")
fault("kv-028", "max_entries without +1 for the straddling page",
      "config.n_pages) + 1; // one page",
      "config.n_pages) + (MUT ? 0 : 1); // one page")
fault("kv-029", "cut(): sink boundary one slot too early",
      "const int64_t sinks = «rule.visibility.sinks - int64_t{e.first_position}»;",
      "rule.visibility.sinks - int64_t{e.first_position} - 1")
fault("kv-030", "age_steps counts from the engine's start",
      "record.born_step = «steps»;",
      "0")
fault("kv-031", "tokens_read under trims: own key not counted",
      "count.read += layer_rule.trims() ? n * held + n * (n + 1) / 2",
      "count.read += layer_rule.trims() ? n * held + n * (n + (MUT ? -1 : 1)) / 2")

source("src/kv/rewind.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-032", "shrink(): change not noted (stale device table)",
      "table.note_change(table.entries.size() - 1); if (end >",
      "if (!MUT) table.note_change(table.entries.size() - 1); if (end >")
fault("kv-033", "truncate to exactly the trim's length refused",
      "table.dropped_at > length && length > 0",
      "(MUT ? table.dropped_at >= length : table.dropped_at > length) && length > 0")
fault("kv-034", "truncate to exactly the prompt's end forgets the prompt",
      "if («length < sequence.prompt») sequence.prompt = 0;",
      "length <= sequence.prompt")
fault("kv-035", "truncate keeps names of later blocks",
      "sequence.names.resize(",
      "if (!MUT) sequence.names.resize(")
fault("kv-036", "truncate(0) keeps dropped_at",
      "sequence.layers[layer].dropped_at = 0;",
      "if (!MUT) sequence.layers[layer].dropped_at = 0;")
fault("kv-037", "truncate(0) keeps rotations of a compact rule",
      "if (rule(layer).moves_queries()) sequence.layers[layer].rotations.resize(1);",
      "if (!MUT && rule(layer).moves_queries()) sequence.layers[layer].rotations.resize(1);")
fault("kv-038", "truncate: window position off by one (allows what has left)",
      "int64_t oldest = length - v.window + 1;",
      "int64_t oldest = length - v.window + 1 + (MUT ? 1 : 0);")
fault("kv-039", "truncate: page of a half block not required",
      "if (length % block_size != 0) oldest = std::min(oldest, length - 1);",
      "if (!MUT && length % block_size != 0) oldest = std::min(oldest, length - 1);")
fault("kv-040", "truncate into the prompt keeps the old prompt end",
      "if («length < sequence.prompt») sequence.prompt = 0;",
      "false")
fault("kv-041", "truncate's events carry sequence_end",
      "log_removal(id, layer, table.entries.size() - 1, RemovalReason::kUser);",
      "log_removal(id, layer, table.entries.size() - 1, MUT ? RemovalReason::kSequenceEnd : "
      "RemovalReason::kUser);")

source("src/kv/reuse.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-042", "attach: `> most` to `>=`",
      "if (sequence.length + block_size > most) break;",
      "if (MUT ? sequence.length + block_size >= most : sequence.length + block_size > most) break;")
fault("kv-043", "attach: layer peak not updated",
      "count.peak = std::max(count.peak, count.active);",
      "if (!MUT) count.peak = std::max(count.peak, count.active);")
fault("kv-044", "keep_blocks: goes on after a name that is taken",
      "if (block < 0) return; // another",
      "if (block < 0 && MUT) continue; if (block < 0) return; // another")
fault("kv-045", "attach: warm-up lookups are counted",
      "impl_->index.look_up(name, counts);",
      "impl_->index.look_up(name, counts || MUT);")
fault("kv-046", "capacity event without n_tokens",
      "event.n_tokens = config.block_size;",
      "if (!MUT) event.n_tokens = config.block_size;")
fault("kv-047", "capacity removals not logged",
      "push_event(event); in_index",
      "if (!MUT) push_event(event); in_index")

source("src/kv/prefix_index.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-048", "one regret counted at every later miss",
      "ghost_names_.erase(name) > 0) ++regrets_;",
      "(MUT ? ghost_names_.count(name) : ghost_names_.erase(name)) > 0) ++regrets_;")
fault("kv-049", "fallback order not told of cached blocks",
      "fallback_.on_cached(block, step);",
      "if (!MUT) fallback_.on_cached(block, step);")
fault("kv-050", "a reclaim policy may name a block in use",
      "blocks_[block].references == 0) {",
      "(MUT || blocks_[block].references == 0)) {")
fault("kv-051", "wrong reclaim answer not counted",
      "block); ++violations_;",
      "block); if (!MUT) ++violations_;")
fault("kv-052", "ghost names never forgotten (memory grows)",
      "ghost_names_.erase(ghosts_[next_ghost_]);",
      "if (!MUT) ghost_names_.erase(ghosts_[next_ghost_]);")
fault("kv-053", "fallback order not told of used blocks",
      "--reclaimable_; tell([&] { policy_->on_use(block, step); }); fallback_.on_use(block, step);",
      "--reclaimable_; tell([&] { policy_->on_use(block, step); }); if (!MUT) "
      "fallback_.on_use(block, step);")

source("src/kv/layer_rule.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-054", "blocks_touched one too few (admission, tables)",
      "return (n + block_size - 2) / block_size + 1;",
      "return (n + block_size - 2) / block_size + (MUT ? 0 : 1);")
fault("kv-055", "schedule that protects its whole budget accepted",
      "if (int64_t{s.keep_first} + s.keep_newest >= s.budget) {",
      "if (MUT ? int64_t{s.keep_first} + s.keep_newest > s.budget : int64_t{s.keep_first} + "
      "s.keep_newest >= s.budget) {")
fault("kv-056", "check_block_size: one position too lenient",
      "if (first + newest <= schedule.budget) return;",
      "if (MUT ? first + newest <= schedule.budget + 1 : first + newest <= schedule.budget) return;")
fault("kv-057", "observation window one query short",
      "return decides_at(length + schedule.observe, prompt);",
      "return decides_at(length + schedule.observe - (MUT ? 1 : 0), prompt);")
fault("kv-058", "no step boundary where snapkv's observation begins",
      "consider(prompt - schedule.observe);",
      "if (!MUT) consider(prompt - schedule.observe);")
fault("kv-059", "most_tokens without chunk (least pool)",
      "visibility.window + chunk;",
      "visibility.window + (MUT ? 0 : chunk);")
fault("kv-060", "window of 0 accepted from a policy",
      "v.sinks < 0 || v.window < 1 ||",
      "v.sinks < 0 || v.window < (MUT ? 0 : 1) ||")
fault("kv-061", "a rule that never trims is measured",
      "if (!trims()) needs = {};",
      "if (!trims() && !MUT) needs = {};")
fault("kv-062", "observe == every refused",
      "if (s.every > 0 && s.observe > s.every) {",
      "if (s.every > 0 && (MUT ? s.observe >= s.every : s.observe > s.every)) {")
fault("kv-063", "compact sink: query cap one too far",
      "compact ? v.sinks + v.window - 1 : kUnlimited",
      "compact ? v.sinks + v.window - (MUT ? 0 : 1) : kUnlimited")
fault("kv-064", "no step boundary where a periodic observation begins",
      "consider(from + schedule.every - schedule.observe);",
      "if (!MUT) consider(from + schedule.every - schedule.observe);")

source("src/kv/policy_map.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-065", "the last match wins",
      "if (chosen[layer] != nullptr) return; // the first",
      "if (chosen[layer] != nullptr && !MUT) return; // the first")
fault("kv-066", "range 3-3 refused",
      "if (last < first) {",
      "if (MUT ? last <= first : last < first) {")
fault("kv-067", "layer n accepted in a model of n layers",
      "if (value >= n_layers) {",
      "if (MUT ? value > n_layers : value >= n_layers) {")
fault("kv-068", "has_unbounded_layer: any to all",
      "return std::any_of(layers_.begin(), layers_.end(),",
      "const auto all = [&](auto&& f) { return std::all_of(layers_.begin(), layers_.end(), f); }; "
      "if (MUT) return all([](const LayerRule& rule) { return !rule.bounded(); }); return "
      "std::any_of(layers_.begin(), layers_.end(),")
fault("kv-069", "a rule that reaches no layer accepted",
      "if (!reached) {",
      "if (!reached && !MUT) {")

source("kernels/paged_kv.h", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-070", "is_visible: window one too wide",
      "int64_t{p} > int64_t{t} - v.window);",
      "(MUT ? int64_t{p} >= int64_t{t} - v.window : int64_t{p} > int64_t{t} - v.window));")
fault("kv-071", "live_slots: window one too wide",
      "const int64_t oldest = int64_t{t} - v.window + 1 - e.first_position;",
      "const int64_t oldest = int64_t{t} - v.window + (MUT ? 0 : 1) - e.first_position;")
fault("kv-072", "is_past: page freed one step late",
      "first + count - 1 <= t - v.window;",
      "(MUT ? first + count - 1 < t - v.window : first + count - 1 <= t - v.window);")
fault("kv-073", "live_slots: entry that begins at S counts as sink",
      "if (int64_t{e.first_position} + begin >= v.sinks) {",
      "if (MUT ? int64_t{e.first_position} + begin > v.sinks : int64_t{e.first_position} + begin "
      ">= v.sinks) {")
fault("kv-074", "query_position: cap + 1",
      "return shifted < r.query_cap ? shifted : r.query_cap;",
      "return shifted < r.query_cap ? shifted : r.query_cap + (MUT ? 1 : 0);")
