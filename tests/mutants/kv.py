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
      "«runner_up = -1;» named.assign",
      "")
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
      "«++shortfalls;»",
      "")
fault("kv-010", "fallback takes newest instead of oldest blocks",
      "for (size_t i = 0; i < view.size() && freed < excess; ++i) { if (view[i].is_protected",
      "for (size_t k = 0; k < view.size() && freed < excess; ++k) { const size_t i = MUT ? "
      "view.size() - 1 - k : k; if (view[i].is_protected")
fault("kv-011", "dropped_at not set by a trim (truncate then allowed)",
      "table.dropped_at = sequence.length;",
      "if (!MUT) table.dropped_at = sequence.length;")
fault("kv-014", "view: key_norm not divided by tokens",
      "static_cast<double>(key_norms[e.page]) / kNormUnit / «(e.slot_end - e.slot_begin)»;",
      "1")
fault("kv-075", "sufficient_budget is one too high where a budget would protect others",
      "const int64_t last = «std::min({budget, tokens_ - gone, own}) - 1»;",
      "std::min({budget, tokens_ - gone, own})")
fault("kv-076", "sufficient_budget: what a larger budget would protect still counts as gone",
      "«gone -= n_tokens;»",
      "")
fault("kv-077", "sufficient_budget: nothing would be protected",
      "«add(own, block.n_tokens);»",
      "gone_ += block.n_tokens;")
fault("kv-078", "sufficient_budget: protection reaches a block one position early",
      "schedule_.newest_divisor * («length_ - block.first_position - block.n_tokens + 1»)",
      "length_ - block.first_position - block.n_tokens")
fault("kv-079", "recent_mass is that of the last step",
      "«record.recent_mass += uses[i].mass;»",
      "record.recent_mass = uses[i].mass;")
fault("kv-080", "a use by the first query is not noted",
      "if («uses[i].last_used >= 0») {",
      "uses[i].last_used > 0")
fault("kv-081", "what is observed begins at no length",
      "if («rule.observes_from(sequence.length, sequence.prompt)» || (decides",
      "false")
fault("kv-082", "what one prompt was observed by counts for the next",
      "(rule.schedule.observe == 0 || «rule.schedule.every == 0»)",
      "false")
fault("kv-083", "a decision leaves one position too many",
      "const int64_t excess = «sequence.layers[layer].tokens - sequence.layers[layer].schedule.budget»;",
      "sequence.layers[layer].tokens - sequence.layers[layer].schedule.budget - 1")
fault("kv-084", "decisions are not counted",
      "«++counters[layer].decisions;»",
      "")
fault("kv-086", "a rule is shown all attention as recent",
      "mass_of(«record.recent_mass»);",
      "record.mass")
fault("kv-087", "a rule is shown the clock in place of the position of last use",
      "block.last_used = «record.last_used»; block.key_norm",
      "record.last_used_step")
fault("kv-088", "violations are not counted",
      "«++violations;» if (is_observed())",
      "")
fault("kv-089", "the last violation is not told",
      "«last_violation.swap(what);»",
      "")
fault("kv-090", "a block may be named twice",
      "if («named[victim.block] != 0») {",
      "false")
fault("kv-091", "a protected block may be named",
      "if («block.is_protected») {",
      "false")
fault("kv-092", "an infinite score is accepted",
      "if («!std::isfinite(victim.score)») {",
      "std::isnan(victim.score)")
fault("kv-093", "one block more than needed leaves",
      "if («freed >= excess») { runner_up",
      "freed > excess")
fault("kv-094", "what the manager chose is not marked as overruled",
      "choices.push_back({static_cast<int32_t>(i), 0, «true»});",
      "false")
fault("kv-095", "protected blocks leave in place of a wrong answer",
      "if («view[i].is_protected || named[i] != 0») continue;",
      "named[i] != 0")
fault("kv-096", "the time inside trim() is not counted",
      "«policy_nanoseconds += spent;» if (spent",
      "")
fault("kv-097", "left_together counts one too many",
      "details.left_together = «static_cast<int32_t>(choices.size())»;",
      "static_cast<int32_t>(choices.size()) + 1")
fault("kv-098", "all that leaves together has the same rank",
      "«++details.rank;»",
      "details.rank = 0;")
fault("kv-099", "the runner-up is not told where it is the first block",
      "if («runner_up >= 0») {",
      "runner_up > 0")
fault("kv-100", "the index of the runner-up stands for its position",
      "details.runner_up_position = «view[runner_up].first_position»;",
      "runner_up")
fault("kv-101", "tokens of trimmed blocks count as resident",
      "drop_from_view(layer, e.page, RemovalReason::kPolicyTrim); «e.page = -1;»",
      "e.page = -1; counters[layer].tokens += 1;")

source("src/kv/cache_manager.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-025", "extend(): growth of the last entry not noted (stale device table)",
      "table.changes.note(table.n_entries() - «(length % block == 0 ? 0 : 1)»);",
      "0")
fault("kv-016", "open(): the prompt's end of the previous sequence stays",
      "«static_cast<SequenceFacts&>(sequence) = {};»",
      "const int64_t stays = sequence.prompt; static_cast<SequenceFacts&>(sequence) = {}; "
      "sequence.prompt = stays;")
fault("kv-018", "close(): event logged for pages that others still hold",
      "if (impl_->pool.references(table.entries[i].page) == 1) { impl_->log",
      "if (MUT || impl_->pool.references(table.entries[i].page) == 1) { impl_->log")
fault("kv-019", "set_prompt() accepts a length that is reached already",
      "if («length <= sequence.length») return; sequence.prompt = length;",
      "false")
fault("kv-020", "pool_peak never updated",
      "«pool_peak = std::max<int64_t>(pool_peak, int64_t{pool.used_units()} - "
      "pool.reclaimable_units());»",
      "")
fault("kv-230", "pages kept for reuse count for the pool's peak",
      "int64_t{pool.used_units()} - «pool.reclaimable_units()»",
      "0")
fault("kv-021", "layer peak never updated in extend()",
      "count.peak = std::max(count.peak, count.active); }",
      "if (!MUT) count.peak = std::max(count.peak, count.active); }")
fault("kv-022", "keys_met: ramp one too long (tokens_read)",
      "std::clamp(max, first, first + n);",
      "std::clamp(max + (MUT ? 1 : 0), first, first + n);")
fault("kv-023", "window removals not logged",
      "log_removal(id, layer, keep, RemovalReason::kWindow);",
      "if (!MUT) log_removal(id, layer, keep, RemovalReason::kWindow);")
fault("kv-024", "event logged although the page stays for its sinks",
      "if (e.slot_begin != 0) { // the page stays for its sinks",
      "if (e.slot_begin != 0 && MUT) log_removal(id, layer, keep, RemovalReason::kWindow); if "
      "(e.slot_begin != 0) { // the page stays for its sinks")
fault("kv-031", "tokens_read under trims: own key not counted",
      "count.read += layer_rule.trims() ? n * held + n * (n + 1) / 2",
      "count.read += layer_rule.trims() ? n * held + n * (n + (MUT ? -1 : 1)) / 2")
fault("kv-104", "tokens_peak counts no sinks",
      "const int64_t met = std::min(«max», layer_rule.trims()",
      "int64_t{layer_rule.visibility.window}")
same("kv-109", "open(): blocks that the previous sequence shared stay",
     "«sequence.shared.clear();»",
     "",
     "close() has let go of them")
fault("kv-112", "close(): the second part of a page drops it again",
      "if («i > 0 && table.entries[i].page == table.entries[i - 1].page») continue; // its second part",
      "false")
fault("kv-114", "steps do not end where a prompt does",
      "next_split(sequence.layers[layer].schedule, sequence.length, «sequence.prompt»)",
      "int64_t{0}")
fault("kv-115", "a step longer than the rules allow is accepted",
      "«n > max_next(id)» || sequence.length + n",
      "false")
fault("kv-116", "the last position cannot be reserved",
      "|| «sequence.length + n > sequence.rules->max_positions») {",
      "sequence.length + n >= sequence.rules->max_positions")
fault("kv-117", "a sequence may grow beyond max_positions",
      "|| «sequence.length + n > sequence.rules->max_positions») {",
      "false")
fault("kv-118", "reservations refused are not counted",
      "«++impl_->refused;»",
      "")
fault("kv-119", "reserve() makes room for one block only",
      "if (!impl_->find_room(sequence, «blocks»)) {",
      "1")
fault("kv-123", "pages allocated are not counted",
      "«count.allocated += blocks;»",
      "")
fault("kv-124", "tokens written are not counted",
      "«impl_->tokens_written += n;»",
      "")
fault("kv-125", "sinks are split at every later length",
      "«sequence.length == layer_rule.splits_at()»",
      "sequence.length >= layer_rule.splits_at()")
fault("kv-126", "pages that are past stay for one step",
      "if (!is_past(v, «sequence.length», begin, end - begin)) break;",
      "sequence.length - 1")
fault("kv-127", "positions of released pages count as resident",
      "«counters[layer].tokens -= e.slot_end - e.slot_begin;» if (e.slot_begin != 0)",
      "")
fault("kv-128", "the clock stands still",
      "«++impl_->steps;»",
      "")

fault("kv-261", "sinks and windows: pages that leave count as freed for good",
      "if (!unlist_page(layer, page)) «++counters[layer].retained;»",
      "")
fault("kv-283", "what a step fills and passes is not kept",
      "«impl_->keep_blocks(sequence, tokens, false);» // what",
      "", tests="cache_test")

source("src/kv/rewind.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-032", "shrink(): change not noted (stale device table)",
      "table.changes.note(table.n_entries() - 1); if (end >",
      "if (!MUT) table.changes.note(table.n_entries() - 1); if (end >")
fault("kv-033", "truncate to exactly the trim's length refused",
      "table.dropped_at > length && length > 0",
      "(MUT ? table.dropped_at >= length : table.dropped_at > length) && length > 0")
same("kv-034", "truncate to exactly the prompt's end forgets the prompt",
      "if («length < sequence.prompt») sequence.prompt = 0;",
      "length <= sequence.prompt",
     "Whatever decides at the prompt's end has decided there, and no length beyond it asks for it again")
fault("kv-036", "truncate(0) keeps dropped_at",
      "sequence.layers[layer].dropped_at = 0;",
      "if (!MUT) sequence.layers[layer].dropped_at = 0;")
fault("kv-037", "truncate(0) keeps rotations of a compact rule",
      "if (rule.moves_queries()) sequence.layers[layer].rotations.resize(1);",
      "if (!MUT && rule.moves_queries()) sequence.layers[layer].rotations.resize(1);")
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
fault("kv-134", "rollback() leaves a step under way",
      "impl_->shrink(id, layer, sequence.length, true); } «sequence.reserved = 0;»",
      "")
fault("kv-135", "an entry of no positions stays",
      "if («end > last.slot_begin») break;",
      "end >= last.slot_begin")
fault("kv-136", "pages given back count as active",
      "release_page(last.page); «--count.active;»",
      "")
fault("kv-137", "a removal is logged although the block stays for reuse",
      "if (end == 0 && !reserved && «pool.references(last.page) == 1») {",
      "true")
fault("kv-138", "truncating to the length that it has is refused",
      "if (length < 0 || «length > sequence.length») {",
      "length >= sequence.length")
fault("kv-139", "truncating while a step is under way is accepted",
      "if («sequence.reserved != 0») fail",
      "false")
fault("kv-141", "what key norms have measured may be taken back",
      "(rule.needs.attention || «rule.needs.key_norms»)) {",
      "false")
fault("kv-142", "what attention has measured may be taken back",
      "(«rule.needs.attention» || rule.needs.key_norms)) {",
      "false")
fault("kv-143", "what a trim dropped may be needed again",
      "if («table.dropped_at > length && length > 0») {",
      "false")
fault("kv-144", "a page that the next query needs may be missing",
      "if (oldest < length && «table.listed_from(length, oldest) > oldest») {",
      "false")
fault("kv-145", "truncate: blocks shared beyond stay in use",
      "«impl_->unlock(sequence.shared.back());»",
      "")
fault("kv-146", "sinks are joined at the length that splits them",
      "rule.has_sinks() && «length < rule.splits_at()»",
      "length <= rule.splits_at()")
fault("kv-147", "sinks stay apart after truncate()",
      "if («rule.has_sinks()» && length < rule.splits_at()) sequence",
      "false")

source("src/kv/reuse.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-042", "match_prefix: a block that ends at max_positions is left out",
      "int64_t max_blocks = impl_->most_found(sequence, «max_positions») / block_size;",
      "max_positions - 1")
fault("kv-225", "match_prefix: change not noted",
      "«table.changes.note(table.n_entries());» int64_t told_from",
      "")
fault("kv-043", "match_prefix: layer peak not updated",
      "++count.active; «count.peak = std::max(count.peak, count.active);» } pool.retain",
      "")
fault("kv-045", "match_prefix: warm-up lookups are counted",
      "extend(root, tokens, max_blocks, «counts», sequence.shared);",
      "true")
fault("kv-148", "blocks of a rule that trims are shared",
      "if («rule.trims() && !rule.is_elastic») return false;",
      "false", tests="sharing_test cache_test")
fault("kv-282", "there is room for fewer blocks than layers without a window can hold",
      "const int64_t units = pages_where(policies, config, [](const LayerRule& rule) { return «!rule.has_window()»; });",
      "true")
fault("kv-151", "a page that two sequences share counts twice",
      "if («pool.references(page) == 1») { // the tree alone",
      "true")
fault("kv-231", "a sequence whose full blocks are its own lists kept blocks after them",
      "if («before / block_size != static_cast<int64_t>(known)») return 0;",
      "false", tests="sharing_test cache_test")
fault("kv-232", "positions that a kept block replaces stay listed",
      "if («before % block_size != 0») impl_->drop_tail(sequence);",
      "false", tests="sharing_test cache_test")
fault("kv-233", "pages of a tail that a kept block replaces are not counted",
      "if («unlist_page(layer, table.entries.back().page)») note_merge(sequence, layer);",
      "(unlist_page(layer, table.entries.back().page), false)", tests="sharing_test cache_test")
fault("kv-268", "a hit lists what its windows have passed",
      "if («is_past(rule.visibility, sequence.length, position, block_size)») continue;",
      "false", tests="cache_test")
fault("kv-269", "a hit beyond sinks and window lists them together",
      "«table.split_sinks(rule);» release_past",
      "", tests="cache_test")
fault("kv-270", "what shares a page with sinks stays listed after a hit",
      "table.split_sinks(rule); «release_past(id, layer);»",
      "", tests="cache_test")
fault("kv-271", "what a window passes with a hit stays listed",
      "«release_past(id, layer);» // first, so",
      "", tests="cache_test")
fault("kv-275", "the tail of a table stays in two parts when a kept block replaces it",
      "if («is_split && sequence.length - n < rule.splits_at()») table.join_sinks(rule);",
      "false", tests="cache_test")

source("src/kv/keep.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-044", "keep_blocks: what is deeper than another's copy is dropped",
      "if (node >= 0) { // Another",
      "if (node >= 0 && MUT) return; if (node >= 0) { // Another")
fault("kv-150", "blocks that a sequence lists may be reclaimed",
      "«tree.lock(node, is_prompt);» } void CacheManager::Impl::unlock",
      "")
fault("kv-152", "blocks of tokens that were never written are kept",
      "std::min(static_cast<int64_t>(tokens.size()), «sequence.length») / block_size;",
      "static_cast<int64_t>(tokens.size())")
fault("kv-153", "kept blocks leave with their sequence",
      "node_of[page] = «node»;",
      "-1")
fault("kv-196", "another's copy is not locked",
      "«lock(node, true);» } else {",
      "")
fault("kv-234", "blocks are merged where bits may differ",
      "if («!config.merges_blocks && !is_ending») return;",
      "false", tests="cache_test")
fault("kv-237", "the page of a merged block is lost",
      "if («unlist_page(layer, own)») note_merge(sequence, layer);",
      "false", tests="sharing_test cache_test")
fault("kv-197", "the tree holds no reference to what it keeps",
      "page = own; «pool.retain(page);»",
      "")
fault("kv-263", "pages of a block locked again are not known as passed",
      "if («page < 0 || !pool.is_reclaimable(page)») continue;",
      "true", tests="cache_test")
fault("kv-264", "pages of a block that nobody has locked stay among those passed",
      "if (page >= 0) «passed.remove(page);» } prune",
      "(void)page;", tests="cache_test")
fault("kv-272", "pages computed again do not come back into their block",
      "if («page < 0») { page = own;",
      "false", tests="cache_test")
fault("kv-273", "a text that finds no room in the tree keeps its part of it",
      "«unlock_all(sequence);» sequence.is_apart",
      "sequence.shared.clear();", tests="cache_test")
fault("kv-274", "where there is no room for a block none leaves for it",
      "if («node >= 0 || tree.evictable() == 0») return node;",
      "true", tests="cache_test")

source("src/kv/reclaim.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-046", "capacity event without n_tokens",
      "event.n_tokens = config.block_size;",
      "if (!MUT) event.n_tokens = config.block_size;")
fault("kv-047", "capacity removals not logged",
      "«push_event(event);»",
      "")
fault("kv-154", "one block too many is reclaimed",
      "while («!pool.fits(wanted)») reclaim();",
      "(++wanted[0], !pool.fits(wanted)) && tree.evictable() > 0 && (--wanted[0], true)")
fault("kv-155", "a reclaimed block is logged at position 0",
      "event.first_position = «int64_t{tree.depth(node)} * config.block_size»;",
      "0")
fault("kv-156", "a reclaimed block is logged without the step",
      "«event.step = steps;»",
      "")
fault("kv-157", "a reclaimed block is logged as one of sequence 0",
      "«event.sequence = -1;»",
      "")
fault("kv-158", "reclaimed pages are not counted as removed",
      "«++counters[layer].removed[static_cast<size_t>(reason)];»",
      "")
fault("kv-194", "what cannot be enough is reclaimed all the same",
      "if (!has_room(pages_per_layer)) return false;",
      "const bool fits = has_room(pages_per_layer); "
      "while (MUT && !pool.fits(wanted) && tree.evictable() > 0) reclaim(); "
      "if (!fits) return false;")
fault("kv-195", "a page that is listed again may still be reclaimed",
      "pool.set_reclaimable(page, «is_cached»);",
      "true")
fault("kv-244", "a page of which a sequence lists the beginning leaves with its block",
      "if («pool.references(page) > 1») { // a sequence",
      "false", tests="sharing_test cache_test")
fault("kv-262", "a page that was passed and is kept is not known as such",
      "if («tree.locks(node_of[page]) == 0») return; // it leaves",
      "true", tests="cache_test")
fault("kv-265", "blocks leave before pages that were passed earlier",
      "leaf >= 0 && «tree.last_use(leaf) < passed_at[page]»",
      "true", tests="cache_test")
fault("kv-266", "pages that were passed leave before blocks let go of earlier",
      "leaf >= 0 && «tree.last_use(leaf) < passed_at[page]»",
      "false", tests="cache_test")
fault("kv-267", "why a page that was passed is gone is not remembered",
      "«tree.note_page_gone(node, {how.step, how.request, MissReason::kTrimmed});»",
      "", tests="cache_test")

source("src/kv/own_tail.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-238", "a page that the tree holds is written",
      "return «pool.references(table.entries.back().page) > 1»;",
      "false", tests="sharing_test cache_test")
fault("kv-239", "what is copied is not the page",
      "«if (config.copy_page) config.copy_page(page, own_pages.back());»",
      "", tests="sharing_test")
fault("kv-241", "a block that another sequence lists is taken from it where there is no page for a copy",
      "return «pool.references(page) > (node < 0 ? 1 : 2)» || (node",
      "false", tests="cache_test")
fault("kv-243", "pages taken for a copy that failed are lost",
      "if (page >= 0) «release_page(page);»",
      "(void)page;", tests="cache_test")
fault("kv-276", "a page that is the sequence's own alone is copied",
      "if («pool.references(page) == 1») { own_pages",
      "false", tests="cache_test")

source("src/kv/prefix_tree.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-731", "half as much of what left is remembered",
      "order_(std::move(policy), capacity), departed_(«remembered(capacity)»)", "remembered(capacity) / 2", tests="cache_test:PrefixTree.*")
fault("kv-732", "one more continuation is compared",
      "child >= 0 && i < «kCompared»;", "kCompared + 1", tests="cache_test:PrefixTree.*")
fault("kv-048", "one regret counted at every later miss",
      "«departure->is_regretted = true;»",
      "")
fault("kv-277", "a hit needs the pages of its last block alone",
      "serves = serves && «is_past(v, (i + 1) * block_size_, absent_[layer] * block_size_, block_size_)»;",
      "absent_[layer] < i", tests="cache_test")
fault("kv-278", "a sink that is gone is forgotten",
      "pages(node)[layer] < 0 && «!is_lost») absent_",
      "true", tests="cache_test")
fault("kv-279", "a hit is as long as the text that is known",
      "nodes.resize(«served»);",
      "nodes.size()", tests="cache_test")
fault("kv-280", "what a block was missing for is not forgotten when it comes back",
      "«departed_.take(n.hash);» int32_t& bucket",
      "", tests="cache_test")
fault("kv-257", "what left with the rules counts as regret",
      "if (counts && departure != nullptr && «departure->reason != MissReason::kSettings» &&",
      "true", tests="sharing_test")
fault("kv-258", "a miss tells of a block that only differs as reclaimed",
      "miss.reason = «departure->reason»;",
      "MissReason::kDiffers", tests="sharing_test")
fault("kv-259", "a miss tells the newest continuation, not the longest",
      "common = «std::max<int64_t>(common, end - its.begin())»;",
      "end - its.begin()", tests="sharing_test")
fault("kv-260", "a block in use becomes a leaf when what continued it has left",
      "nodes_[parent].first_child < 0 && «nodes_[parent].locks == 0») {",
      "true")
fault("kv-159", "every look-up is a hit",
      "hits_ += «static_cast<int64_t>(served - known)»;",
      "static_cast<int64_t>(served - known) + 1")
fault("kv-160", "tokens are not compared",
      "if («std::equal(its.begin(), its.end(), tokens.begin(), tokens.end())») break;",
      "true")
fault("kv-200", "a block is found after any prefix",
      "nodes_[node].hash != hash || «nodes_[node].parent != parent») continue;",
      "false")
fault("kv-201", "the hash of a block is that of its own tokens",
      "hash_(«parent < 0 ? hash_of_root(parent) : nodes_[parent].hash», tokens);",
      "0")
fault("kv-202", "blocks of the same tokens in another order have one hash",
      "hash = mix(hash ^ static_cast<uint32_t>(token));",
      "hash = (MUT ? hash ^ mix(static_cast<uint32_t>(token)) : mix(hash ^ static_cast<uint32_t>(token)));")
fault("kv-203", "one block more than asked for is matched",
      "tokens.size()) / block_size_, «max_blocks»); const size_t known",
      "max_blocks + 1")
fault("kv-204", "all blocks stand at depth 0",
      "parent < 0 ? 0 : «nodes_[parent].depth + 1»;",
      "0")
same("kv-161", "every further reader makes a block less evictable",
     "if (nodes_[node].locks++ == 0) order_",
     "if (nodes_[node].locks++ == 0 || MUT) order_",
     "A block in use stands in no list and is no leaf: there is nothing to take out")
fault("kv-162", "a block is evictable while others read it",
      "if (--n.locks == 0) order_",
      "if (--n.locks == 0 || MUT) order_")
fault("kv-165", "evicted blocks are not remembered",
      "«if (how != nullptr) departed_.add(nodes_[node].hash, *how);»",
      "")
fault("kv-166", "an evicted block is still found",
      "*at = «n.next»; if (n.elder",
      "node")
fault("kv-167", "numbers of evicted blocks are lost",
      "«free_.push_back(node);» } void PrefixTree::unlink",
      "")
fault("kv-205", "a block leaves before what continues it",
      "«while (nodes_[node].first_child >= 0) node = nodes_[node].first_child;»",
      "")
fault("kv-206", "an evicted block takes its elder siblings along",
      "«n.elder»; } void PrefixTree::check_integrity",
      "-1")
fault("kv-207", "a sibling keeps an evicted block beside it",
      "«if (n.elder >= 0) nodes_[n.elder].younger = n.younger;»",
      "")

source("src/kv/reclaim_policy.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-049", "fallback order not told of cached blocks",
      "«room_.lists.push_back(0, block.block);»",
      "")
fault("kv-050", "a reclaim policy may name a block in use",
      "if (known && «room_.is_leaf[block] != 0») return block;",
      "true")
fault("kv-051", "wrong reclaim answers and what hooks throw are not counted",
      "noexcept { «++violations_;» try",
      "")
fault("kv-209", "a block that is listed again may still be named",
      "«room_.is_leaf[block] = 0;» tell([&] { policy_->on_use",
      "")
fault("kv-245", "a policy is told of blocks that others continue",
      "if («is_leaf») on_leaf(block);",
      "true")
fault("kv-246", "a policy is not told that a leaf is used again",
      "tell([&] { «policy_->on_use(block);» });",
      "")
fault("kv-247", "a policy is not told what left",
      "tell([&] { «policy_->on_removed(block);» });",
      "")
fault("kv-248", "the policy is not asked",
      "if («tell([&] { block = policy_->next(); })») {",
      "false", tests="cache_test sharing_test")

source("src/kv/reclaim_s3fifo.cpp", "cache_test")
fault("kv-249", "s3fifo: what comes back is a newcomer again",
      "comes_back ? «kMain» : kSmall",
      "kSmall")
fault("kv-250", "s3fifo: what left the main queue is remembered",
      "if («blocks_[block].queue == kSmall») ghosts_",
      "true")
fault("kv-251", "s3fifo: what was found again leaves like the others",
      "block < 0 || «blocks_[block].found == 0») return block;",
      "true")
fault("kv-252", "s3fifo: prompts before it was a leaf do not count",
      "std::min<int64_t>(«block.prompts - 1», kMostFound)",
      "int64_t{0}")

source("src/kv/reclaim_depth.cpp", "cache_test")
fault("kv-253", "depth: what many came through once stays for ever",
      "std::min<int64_t>(block.prompts - 1 + returns, «kMostTimes»);",
      "int64_t{1000000}")
fault("kv-453", "depth: what left is no known text when it comes back",
      "«gone_.add(leaf.text, gone_.take(leaf.text).value_or(0) + 1);»",
      "")
fault("kv-454", "depth: what was found counts in the age of those that were not",
      "if («leaf.times == 0») {",
      "true")
fault("kv-455", "depth: a text that came back is forgotten",
      "«if (returns > 0) gone_.add(block.text, returns);»",
      "")
fault("kv-254", "depth: a block taken out of the heap's middle does not sink",
      "rise(at); «sink(static_cast<size_t>(places_[last]));»",
      "")
fault("kv-255", "depth: a block taken out of the heap's middle does not rise",
      "«rise(at);» sink(",
      "")
fault("kv-256", "depth: the number of prompts does not matter",
      "std::min<int64_t>(«block.prompts - 1» + returns",
      "0")

source("src/kv/recent_hashes.h", "cache_test")
fault("kv-052", "hashes of what left are never forgotten",
      "«if (slot.used) take(slot.hash);»",
      "")
fault("kv-198", "a hash that is remembered again is there twice",
      "«take(hash);» Slot& slot",
      "")
fault("kv-199", "a hash that was taken is still there",
      "«*at = slot.next;» slot.used = false;",
      "if (hash == 0) *at = slot.next;")

source("src/kv/block_table.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-012", "erase_dropped(): change not noted (stale device table)",
      "changes.note(static_cast<int64_t>(kept));",
      "if (!MUT) changes.note(static_cast<int64_t>(kept));")
fault("kv-013", "renumber_rotations: change not noted",
      "if (entries[i].rotation != rotation) changes.note(static_cast<int64_t>(i));",
      "if (!MUT && entries[i].rotation != rotation) changes.note(static_cast<int64_t>(i));")
fault("kv-102", "the books of a removed block go on for its neighbour",
      "«records[kept] = records[i];»",
      "")
fault("kv-103", "queries are shifted by the last gap alone",
      "«shift += gap;»",
      "shift = gap;")
fault("kv-015", "clear(): change not noted",
      "«changes.note(0);» rotations.clear();",
      "")
fault("kv-017", "clear(): dropped_at of the previous sequence stays",
      "«static_cast<TableFacts&>(*this) = {.schedule = rule.schedule};»",
      "const int64_t stays = dropped_at; static_cast<TableFacts&>(*this) = {.schedule = rule.schedule}; "
      "dropped_at = stays;")
fault("kv-110", "clear(): the most that a query of the previous sequence met stays",
      "«static_cast<TableFacts&>(*this) = {.schedule = rule.schedule};»",
      "const int64_t stays = max_seen; static_cast<TableFacts&>(*this) = {.schedule = rule.schedule}; "
      "max_seen = stays;")
fault("kv-111", "clear(): rotations of the previous sequence stay",
      "«rotations.clear();»",
      "")
fault("kv-026", "block never used counts as used at 0, not when written",
      "record.last_used = «first»;",
      "0")
fault("kv-029", "cut(): sink boundary one slot too early",
      "const int64_t sinks = «rule.visibility.sinks - int64_t{e.first_position}»;",
      "rule.visibility.sinks - int64_t{e.first_position} - 1")
fault("kv-030", "age_steps counts from the engine's start",
      "record.born_step = «step»;",
      "0")
same("kv-120", "the position of last use of the sinks' second part",
     "«record.last_used = std::max<int64_t>(record.last_used, rule.visibility.sinks);»",
     "",
     "Rules with sinks never have attention measured, and what is not measured is told as -1")
same("kv-121", "sinks that end with a block are split from nothing",
     "if («sinks >= e.slot_end») continue;",
     "sinks > e.slot_end",
     "The empty part lies past the window at once, and goes in the same call")
fault("kv-122", "sinks listed with what follows keep a rotation of their own",
      "«e.rotation = static_cast<int32_t>(rule.rotations.size()) - 1;»",
      "")
fault("kv-130", "n_pages() counts a page listed in two parts twice",
      "pages += «e.slot_begin == 0 ? 1 : 0»;",
      "1")
fault("kv-210", "erase(): change not noted",
      "«changes.note(static_cast<int64_t>(first));» const auto from",
      "")
fault("kv-211", "erase(): the books of what is past stay",
      "«records.erase(records.begin() + from, records.begin() + to);»",
      "")
fault("kv-281", "another page of an entry is not noted (stale device table)",
      "«changes.note(entry);» const int32_t before",
      "", tests="cache_test")
fault("answers-048", "of a block that is listed in two parts one stays the others'",
      "++entry) «entries[entry].page = page;»",
      "if (entry + 1 == n_entries()) entries[entry].page = page;", tests="engine_behaviour_test")
fault("kv-212", "listed_from() jumps over gaps",
      "if («e_end >= found» && e_begin",
      "true")

source("src/core/change_log.h", "cache_test")
fault("kv-226", "a later change hides one further in front",
      "while (size_ > 0 && «newest(0).first >= first») --size_;",
      "newest(0).first == first")
fault("kv-227", "what is forgotten is taken for unchanged",
      "if («version < forgotten_») return 0;",
      "version < 0")
fault("kv-228", "the change that made the version counts as one since",
      "«newest(i).version > version»",
      "newest(i).version >= version")
fault("kv-229", "versions stand still",
      "newest(0) = {«++version_», first};",
      "version_ += version_ == 0 ? 1 : 0")

source("src/kv/page_pool.cpp", "cache_test")
fault("kv-213", "a slab opened holds one page too few",
      "for (int32_t i = «its.per_slab»; i-- > 0;) {",
      "std::max(1, its.per_slab - 1)")
fault("kv-214", "a released page keeps its mark",
      "«set_reclaimable(page, false);» const int32_t slab",
      "")
fault("kv-215", "empty slabs keep their size",
      "if («slabs_[slab].used == 0») {",
      "false")
fault("kv-216", "pages that lie in no slab yet are not counted",
      "stock -= «(missing + classes_[c].per_slab - 1) / classes_[c].per_slab»;",
      "missing / classes_[c].per_slab")
fault("kv-217", "slabs that reclaiming would empty count for their size alone",
      "if («slab.reclaimable == slab.used») {",
      "false")
fault("kv-218", "marked pages do not count as free later",
      "its.free_then += sign * («free + slab.reclaimable»);",
      "free")
fault("kv-219", "units of pages in use are those of the first size",
      "used_units_ += «its.units»;",
      "classes_[0].units")
fault("kv-220", "with one size slabs are many pages",
      "slab_units_ = «class_units.size() == 1» ?",
      "false")
fault("kv-221", "a slab that fills up still offers pages",
      "if («s.used == classes_[s.page_class].per_slab») return; s.before",
      "false")

source("src/kv/layout.cpp", "cache_test")
fault("kv-222", "all pages are of one class",
      "group.page_class = «static_cast<int32_t>(known - sizes.begin())»;",
      "0")
fault("kv-223", "groups of one geometry have pages of a byte",
      "std::vector<KvGroup>(n_groups, {«geometry.page_bytes()», 0})",
      "1")

source("src/kv/layer_rule.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-055", "schedule that protects its whole budget accepted",
      "if (int64_t{s.keep_first} + s.keep_newest >= s.budget) {",
      "if (MUT ? int64_t{s.keep_first} + s.keep_newest > s.budget : int64_t{s.keep_first} + "
      "s.keep_newest >= s.budget) {")
fault("kv-056", "check_block_size: one position too lenient",
      "most_protected(schedule, block_size) <= «schedule.budget»;",
      "schedule.budget + 1")
fault("kv-057", "observation window one query short",
      "return decides_at(length + schedule.observe, prompt);",
      "return decides_at(length + schedule.observe - (MUT ? 1 : 0), prompt);")
fault("kv-058", "no step boundary where snapkv's observation begins",
      "consider(prompt - asked.observe);",
      "if (!MUT) consider(prompt - asked.observe);")
fault("kv-059", "max_resident() without chunk (least pool)",
      "return splits_at() + «chunk»;",
      "0")
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
      "consider(from + asked.every - asked.observe);",
      "if (!MUT) consider(from + asked.every - asked.observe);")
fault("kv-169", "negative sinks are accepted",
      "if («v.sinks < 0» || v.window < 1",
      "false")
fault("kv-170", "sinks and window may reach what stands for no limit",
      "«int64_t{v.sinks} + v.window >= int64_t{kUnlimited}»",
      "int64_t{v.sinks} + v.window > int64_t{kUnlimited}")
same("kv-171", "a budget of 0 is accepted",
     "if («s.budget < 1» ||",
     "s.budget < 0",
     "Refused all the same, as one that leaves nothing to choose from")
fault("kv-172", "a negative interval is accepted",
      "«s.every < 0» ||",
      "false")
fault("kv-173", "a negative observation is accepted",
      "«s.observe < 0» ||",
      "false")
fault("kv-174", "a negative keep_first is accepted",
      "«s.keep_first < 0» ||",
      "false")
fault("kv-175", "a negative keep_newest is accepted",
      "«s.keep_newest < 0») {",
      "false")
fault("kv-176", "budget and interval may reach what stands for no limit",
      "«int64_t{s.budget} + s.every >= kUnlimited»",
      "int64_t{s.budget} + s.every > kUnlimited")
fault("kv-177", "a divisor that does not fit is accepted",
      "|| «s.budget / s.newest_divisor != s.keep_newest»)",
      "false")
fault("kv-178", "a rule may trim and have a window",
      "if («trims() && v.bounded()») {",
      "false")
fault("kv-179", "positions may be neither original nor compact",
      "if («positions != Positions::kOriginal && positions != Positions::kCompact») {",
      "false")
fault("kv-482", "an elastic rule may have no limit under a budget",
      "(«answer.budget == kUnlimited» || answer.every",
      "false")
fault("kv-483", "an elastic rule's interval may depend on the budget",
      "|| «answer.every != schedule.every» ||",
      "false")
fault("kv-484", "what an elastic rule observes may depend on the budget",
      "|| «answer.observe != schedule.observe»)) {",
      "false")
fault("kv-485", "an elastic rule may never come to an end of its least budget",
      "|| «min_budget == kUnlimited»)) {",
      "false")
fault("kv-486", "an elastic rule may have a budget of its own",
      "if (is_elastic && («schedule.budget != kUnlimited» ||",
      "false")
fault("kv-487", "an elastic rule may decide once",
      "|| «schedule.every < 1» || min_budget",
      "false")
fault("kv-488", "a least budget may be negative",
      "|| «min_budget < 0» ||",
      "false")
fault("kv-180", "protected first positions are not whole blocks",
      "const auto first = static_cast<int64_t>(«round_up(schedule.keep_first, block_size)»);",
      "schedule.keep_first")
fault("kv-181", "the newest block is forgotten where budgets are checked",
      "«std::max<int64_t>(block_size, int64_t{schedule.keep_newest} + block_size - 1)»;",
      "int64_t{schedule.keep_newest} + block_size - 1")
fault("kv-182", "a step ends nowhere where the prompt does",
      "consider(prompt - asked.observe); «consider(prompt);»",
      "")
fault("kv-183", "pages of an interval are not counted",
      "blocks_touched(most_budget, block_size) + «blocks_touched(schedule.every, block_size)»",
      "0")
fault("kv-184", "pages of a chunk are not counted",
      "blocks_touched(«visibility.window - 1 + chunk», block_size)",
      "visibility.window")
fault("kv-185", "pages of the sinks are not counted",
      "return std::min(all, «sink_blocks» + blocks_touched",
      "0")
fault("kv-186", "a rule of an interval is thought unbounded",
      "return «bounded()» ? most_budget + schedule.every",
      "false")
fault("kv-636", "who shares by need may take more than it is given",
      "if («shares_by_need && answer.budget > budget») {",
      "false")
fault("kv-637", "layers that do not trim share",
      "shares_by_need = «shares_by_need && trims()»;",
      "shares_by_need")

source("src/kv/layer_rule.h", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-054", "blocks_touched one too few (admission, tables)",
      "return (n + block_size - 2) / block_size + «1»;",
      "0")

source("src/kv/cache_impl.h", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-085", "a rule is told the layers in place of the heads",
      "return {layer, config.n_layers, «config.n_heads», config.block_size, sequence.length,",
      "config.n_layers")
fault("kv-638", "layers that share have the elastic layers' budget in place of their own",
      "return «group.budget == kUnlimited ? sequence.budget : group.budget»;",
      "std::min(sequence.budget, group.budget)", tests="elastic_test cache_test")

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
fault("kv-191", "= and , in the arguments of a host's rule make it a list",
      "return «!custom.contains(rule_name(spec))» &&",
      "true")
fault("kv-192", "blocks are checked against the first layer alone",
      "for (int32_t i = 0; «i < size()»; ++i) layers_[i].check_block_size",
      "i < 1")
fault("kv-193", "a range ends one layer early",
      "for (int32_t i = first; «i <= last»; ++i) fn(i);",
      "i < last || i == first")
fault("kv-472", "fixed layers count in the interval of the elastic ones",
      "for (const LayerRule& rule : layers_) { if («!rule.is_elastic») continue; const int64_t every",
      "false")
fault("kv-473", "elastic layers may meet seldom",
      "if («together > kMostInterval») {",
      "false")
fault("kv-474", "intervals are multiplied",
      "interval == 0 ? every : «std::lcm(interval, every)»;",
      "interval * every")
fault("kv-475", "the least budget may be less than a rule asks for",
      "«low = std::max(low, rule.min_budget);»",
      "")
fault("kv-476", "the least budget is twice what is needed",
      "static_cast<int32_t>(smallest(«low», high,",
      "high")
fault("kv-477", "the least budget is one too few",
      "return too_small_in(«static_cast<int32_t>(budget)», block_size, why) < 0;",
      "static_cast<int32_t>(budget + 1)")
fault("kv-478", "what a rule throws counts as a budget that is too small",
      "catch (const PolicyThrew&) { «throw;»",
      "return false;")
fault("kv-481", "an answer that ignores the budget counts as one that is too small",
      "catch (const PolicyIgnoresBudget&) { «throw;»",
      "return false;")
fault("kv-479", "protected blocks may fill an elastic budget",
      "if («leaves_choice(rule.schedule_with(budget, layer, size()), block_size)») return true;",
      "(rule.schedule_with(budget, layer, size()), true)")
fault("kv-639", "every layer that shares is alone",
      "const size_t at = «group_of(rule)»;",
      "sharers_.size()")
fault("kv-640", "layers that share may decide at different lengths",
      "if («rule.schedule.every != every») {",
      "false")
fault("kv-641", "tables of layers that share have room for their own budgets",
      "layers_[layer].most_budget = «std::max<int64_t>(layers_[layer].schedule.budget, most_share(group.budget, n))»;",
      "layers_[layer].schedule.budget")
fault("kv-642", "pages of layers that share are counted one too few",
      "/ block_size + n + «n * blocks_touched(first.schedule.every, block_size)»;",
      "n * blocks_touched(first.schedule.every, block_size) - 1")
fault("kv-643", "the least share is what the layer has on average",
      "static_cast<int32_t>(smallest(«1», most,",
      "most")
fault("kv-480", "rules of one policy have no interval",
      "map.layers_.emplace_back(policy, i, n_layers); «map.find_interval();»",
      "")

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

source("src/kv/layer_rule.h", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-187", "one position more is protected at the beginning",
      "return «first < schedule.keep_first» || end",
      "first <= schedule.keep_first")
fault("kv-188", "the newest block is not protected",
      "|| «end >= length» ||",
      "false")
fault("kv-189", "one position more is protected at the end",
      "|| «end > length - schedule.keep_newest»;",
      "end >= length - schedule.keep_newest")
fault("kv-190", "a rule that decides once counts as bounded",
      "(schedule.budget != kUnlimited && «schedule.every > 0»)",
      "true")

source("src/kv/reclaim_policy.cpp", "cache_test:Reclaim.*")
fault("kv-470", "an order that has no room for more blocks hears of them",
      "if («!tell([&] { policy_->reserve(n_blocks); })») policy_ = nullptr;",
      "!tell([&] { policy_->reserve(n_blocks); }) && false")

source("src/kv/reuse.cpp", "engine_behaviour_test:Pins.*")
fault("kv-471", "a pin counts as a prompt that found the blocks",
      "impl_->lock(sequence.shared[i], «counts»);",
      "true")

source("src/kv/cache_sizes.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-028", "max_entries without +1 for the straddling page",
      "config.n_pages) + 1; // one page",
      "config.n_pages) + (MUT ? 0 : 1); // one page")
fault("kv-129", "pages are summed for chunks of one token",
      "policies.layer(layer).max_pages(block_size, positions, «chunk»);",
      "1")
fault("kv-132", "pages_to_reach() counts what has left again",
      "return std::min<int64_t>(max, «held(layer) + fresh»);",
      "max")
fault("kv-133", "pages_to_reach() forgets the pages held",
      "std::min<int64_t>(max, «held(layer)» + fresh)",
      "0")
fault("kv-284", "a page that several sequences list is counted for each of them",
      "pages += «std::exchange(impl_->marked[e.page], mark) == mark ? 0 : 1»;",
      "1", tests="engine_behaviour_test")

source("src/kv/recall.cpp", "replay_test")
fault("kv-600", "rules are asked again when a text is computed again",
      "return sequence.log != nullptr && «length <= sequence.log->reaches()»;",
      "false")
fault("kv-601", "what is decided at the length that a log reaches is asked again",
      "return sequence.log != nullptr && «length <= sequence.log->reaches()»;",
      "length < sequence.log->reaches()")
fault("kv-602", "commit() takes memory for the log",
      "«sequence.log->make_room(entries);»", "")
fault("kv-603", "the log has no room for the runner-up",
      "return static_cast<int64_t>(ceil_div(excess, block_size)) + «1»;",
      "0")
fault("kv-604", "what the manager chose comes back as the policy's choice",
      "«entry.kind == DecisionKind::kOverruled»});", "false")
fault("kv-605", "a runner-up that comes back leaves",
      "if («entry.kind == DecisionKind::kRunnerUp») {", "false")
fault("kv-606", "the runner-up is not logged",
      "«if (runner_up >= 0) append(runner_up, runner_up_score, DecisionKind::kRunnerUp);»", "")
fault("kv-607", "scores come back as 0",
      "entry.score = «score»;", "0")
fault("kv-608", "decisions of a layer run together",
      "entry.begins = «kind != DecisionKind::kRunnerUp && block == choices.front().block»;", "false")
fault("kv-609", "a log that does not know what is due is taken for one that does",
      "if («choices.empty()») {", "false")
fault("kv-610", "a block that left and is not there is passed over",
      "if («block == table.n_entries()») {", "false")
fault("kv-611", "room for logs is foreseen as for rules that keep nothing",
      "const int64_t budget = rule.shares_by_need ? rules.least_shares[layer] : «schedule.budget»;",
      "0")
fault("kv-612", "room for runners-up is foreseen for each victim",
      "n += victims + «std::min(victims, decisions)» +", "2 * victims")
fault("kv-613", "no room is foreseen for runners-up",
      "n += victims + «std::min(victims, decisions)» +", "0")
fault("kv-644", "no room is foreseen for shares",
      "«(rule.shares_by_need ? decisions : 0)»;", "0")
fault("kv-645", "a step makes no room for shares",
      "if («!is_over(sequence, group, length, n)») continue;", "true")
fault("kv-646", "a fall that is replayed has the shares of before",
      "recall_shares(sequence, group); «take_shares(sequence, group);»", "", tests="cache_test")
fault("kv-614", "what was taken back while it was computed again is decided all the same",
      "«if (sequence.log != nullptr) sequence.log->cut(length);»", "")

source("src/kv/decision_log.cpp", "replay_test")
fault("kv-620", "a log grows entry by entry",
      "std::max(least, «2 * static_cast<size_t>(size_)»);", "least")
fault("kv-621", "a log that grows forgets what it knew",
      "«fresh->assign(mine.begin(), mine.end());»", "")
fault("kv-622", "who shares a log writes into the other's",
      "(«is_own()» && entries_->capacity() >= least)", "(entries_ != nullptr)")
fault("kv-623", "what was cut stays among the entries",
      "«entries_->resize(static_cast<size_t>(size_));» // what was cut goes", "")
fault("kv-624", "a log goes back to what it reached last",
      "reaches_ = std::max(«reaches_», length);", "length")
fault("kv-625", "decisions of another layer are taken",
      "left[0].length != length || «left[0].layer != layer»", "false")
fault("kv-626", "the same decision is taken again and again",
      "«next_ += static_cast<int64_t>(n);»", "")
fault("kv-627", "decisions at the length that a text goes back to are void",
      "return «entry.length <= length»;", "entry.length < length")
fault("kv-628", "a log that was cut reaches as far as before",
      "«reaches_ = std::min(reaches_, length);»", "")
fault("kv-629", "a fork's decisions are the origin's later ones, too",
      "next_ = size_; «cut(length);»", "")
fault("kv-630", "a fork lists what has left it before",
      "«next_ = size_;» cut(length);", "")
fault("kv-631", "room that a fork has is not used",
      "«is_own() && entries_ != other.entries_ && entries_->capacity() >= its.size()»", "false")

source("src/kv/fork.cpp", "replay_test")
fault("kv-632", "a fork that is parked does not know what was decided of its beginning",
      "«fork.log->begin_as(*origin.log, origin.length);»", "")

source("src/kv/rewind.cpp", "replay_test")
fault("kv-633", "decisions that were taken back are decided again",
      "«sequence.log->cut(length);» // The fall", "")

source("src/kv/cache_manager.cpp", "replay_test")
fault("kv-634", "a text that is computed again begins in the middle of its log",
      "«if (log != nullptr) log->rewind();»", "")
fault("kv-635", "the log does not hear how far it reaches",
      "«if (sequence.log != nullptr) sequence.log->reach(sequence.length);»", "")

source("src/kv/share.cpp", "cache_test replay_test")
fault("kv-650", "layers that share do so only where one holds more than all may",
      "for (const int32_t layer : group.layers) «held += sequence.layers[layer].tokens + n;»",
      "held = sequence.layers[layer].tokens + n;")
fault("kv-651", "shares move where nothing has to leave",
      "return «held > int64_t{budget} * static_cast<int64_t>(group.layers.size())»;",
      "true")
fault("kv-652", "what layers get is not written down",
      "const std::lock_guard lock(mutex); «note_shares(sequence, group);»",
      "")
fault("kv-653", "layers want anew what they had before",
      "if («is_known(sequence, sequence.length)») {",
      "false")
fault("kv-654", "who can work with less is not given less",
      "bounds[i] = {«rules.least_shares[layer]», std::min(most, sequence.layers[layer].tokens)};",
      "budget")
fault("kv-655", "layers may get more than they hold",
      "bounds[i] = {rules.least_shares[layer], std::min(most, «sequence.layers[layer].tokens»)};",
      "int64_t{1} << 40")
fault("kv-658", "an elastic layer may come to hold more than there is room for",
      "const int64_t most = «is_elastic ? rules.max_resident - room : kUnlimited»;",
      "kUnlimited")
fault("kv-656", "layers go on with the shares that they had",
      "«sequence.layers[layer].schedule = schedule;»",
      "")
fault("kv-657", "layers that share decide at every length",
      "if («!sequence.rule(group.layers[0]).decides_at(length, sequence.prompt)») return false;",
      "false")

source("src/kv/trim.cpp", "cache_test")
fault("kv-660", "what a layer wants is not checked",
      "if («!std::isfinite(need) || need < 0») {",
      "false")
fault("kv-661", "recent masses never start anew",
      "if («std::exchange(table.is_recent_over, false)») {",
      "false")

source("src/kv/rewind.cpp", "cache_test")
fault("kv-662", "a text that begins anew has the shares of before",
      "«sequence.layers[layer].schedule = rule.schedule;» // not one",
      "")

source("src/kv/fork.cpp", "cache_test")
fault("kv-663", "a fork counts what is no longer recent",
      "«static_cast<TableFacts&>(to) = from;»",
      "static_cast<TableFacts&>(to) = from; to.is_recent_over = false;")

source("src/kv/fall.cpp", "cache_test elastic_test")
fault("kv-664", "a fall gives every layer the same",
      "planned.share = «rule.shares_by_need ? shares_of[layer] : budget»;",
      "budget")
fault("kv-665", "the shares of a fall are not written down",
      "for (const int32_t layer : group.layers) shares_of[layer] = plan.layers[layer].share; «note_shares(sequence, group);»",
      "")

source("src/kv/fall.cpp", "elastic_test:*SizeOfSteps*:ElasticBooks.*")
fault("kv-690", "a step may end where a budget may fall with more queries counted than the rule observes",
      "if («from > 0 && from < n») n =", "false")
fault("kv-691", "who falls keeps its blocks locked",
      "«unlock_all(sequence);» // its blocks stay for others", "")
fault("kv-692", "blocks are published after a fall",
      "«sequence.is_apart = sequence.has_fallen = true;»", "sequence.has_fallen = true;")

source("src/kv/rewind.cpp", "elastic_test:ElasticScenes.*")
fault("kv-693", "going back behind a lift brings the old budget back to who was parked",
      "«sequence.log->append_budget(length, kUnlimited);»", "")

source("src/kv/fall.cpp", "elastic_test:ElasticScenes.*:ElasticBooks.*:ElasticSchedules.* engine_behaviour_test:Pressure.*")
fault("kv-694", "of one fall that was asked about nothing is known",
      "if («falls.size() > 1») cache.plan.sequence = -1;", "true")
fault("kv-695", "a fall counts pages that others list",
      "planned.pages += «is_own(table.entries[choice.block].page) ? config.layout.page_units(layer) : 0»;",
      "config.layout.page_units(layer)")
fault("kv-696", "of what several list each fall counts as if it came back",
      "if («++cache.droppings[d.page] == cache.listings(d.page)») pages +=",
      "++cache.droppings[d.page] > 0")
fault("kv-697", "the log does not know of a fall",
      "if («sequence.log != nullptr») sequence.log->append_budget(sequence.length, plan.budget);", "false")
fault("kv-698", "nobody is told of a fall",
      "«cache.budget_changes.push(fall);» if (cache.is_observed())", "", tests="budget_test")
fault("kv-699", "falls are not counted",
      "«++cache.n_falls;»", "")
fault("kv-700", "where the context is the bound, a budget leaves no room until the next decision",
      "schedule_for(rules, layer, asked).budget + «room» > most", "0")
fault("kv-701", "a lift changes no budget",
      "«sequence.budget = kUnlimited;» for (int32_t layer = 0; layer < config.n_layers; ++layer) { const LayerRule& rule = sequence.rule(layer); if (rule.is_elastic)",
      "")
fault("kv-702", "a lift changes no schedule",
      "if («rule.is_elastic») sequence.layers[layer].schedule = rule.schedule;", "false")

source("src/kv/page_pool.cpp", "cache_test:PagePool*")
fault("kv-710", "what comes free beyond the limit is used again",
      "const bool is_beyond = «slabs_beyond_limit() > 0»;", "false")
fault("kv-711", "a limit that is raised brings nothing back",
      "for (; «slabs_beyond_limit() < 0 && !withheld_.empty()»; withheld_.pop_back())", "false")
fault("kv-712", "what is free is not withheld when the limit is lowered",
      "const auto n = «std::min<int64_t>(slabs_to_withhold(), static_cast<int64_t>(stock_.size()))»;", "int64_t{0}")
fault("kv-713", "reclaiming brings what is to be withheld then",
      "const int64_t emptied = «std::max<int64_t>(0, emptied_ - slabs_to_withhold())»;", "emptied_")

source("src/kv/limit.cpp", "budget_test")
fault("kv-714", "what leaves may be taken again",
      "const int64_t now = «std::min<int64_t>(cache.pool.limit(), listed + owed)»;", "cache.pool.limit()")
fault("kv-715", "nothing is owed beyond the limit",
      "std::min<int64_t>(cache.pool.limit(), «listed + owed»);", "listed")
fault("kv-716", "kept blocks stay beyond the limit",
      "while («cache.pool.slabs_to_withhold() > 0 && cache.pool.reclaimable_units() > 0») cache.reclaim();", "false")
fault("kv-717", "the system gets no memory back",
      "cache.reclaim(); «cache.tell_withheld();»", "")
fault("kv-718", "a limit that is raised while more is in use lowers the pool's",
      "if («impl_->limit <= impl_->pool.limit()») return;", "false")

source("src/kv/prefix_tree.cpp", "cache_test:PrefixTree.*")
fault("kv-719", "as much is remembered of any pool",
      "std::clamp(«kRememberedTimes * capacity», kLeastRemembered, kMostRemembered)", "kLeastRemembered")
fault("kv-720", "what left is forgotten where the room changes",
      "«room->departed->take_over(departed_);»", "")
fault("kv-721", "what is only told counts as looked for",
      "lookups_ += «counts ? 1 : 0»;", "1")
fault("kv-722", "what is only told counts as regret",
      "if («counts» && departure != nullptr &&", "true", tests="sharing_test")
source("src/kv/recent_hashes.h", "cache_test:PrefixTree.*")
fault("kv-723", "what was known is taken over in another order",
      "other.slots_[«(other.oldest_ + i) % other.slots_.size()»];", "other.slots_.size() - 1 - i")
source("src/kv/reuse.cpp", "sharing_test:Sharing.*")
fault("kv-724", "a session that goes on misses nothing",
      "if («impl_->stays_apart(sequence)») {",
      "impl_->stays_apart(sequence) || sequence.length % impl_->config.block_size != 0")
fault("kv-725", "what a parked text had is not known as its own",
      "const bool again = «end <= reached && sequence.length < reached»;", "false")
fault("kv-726", "a turn differs where the block begins",
      "if («differs && sequence.length > std::max(miss.position, miss.differs_at)») {", "false")
source("src/kv/cache_manager.cpp", "engine_behaviour_test:Preemptions.*")
fault("kv-727", "a preemption brings all pages that are free",
      "whose.pages = available_pages() - «before»;", "0")
fault("kv-728", "removals of a preemption come before it",
      "whose.first_event = «impl_->ring.written()»; park(", "impl_->ring.written() + 1")
fault("sequence-002", "what leaves with a parked sequence ended",
      "close(id, tokens, «RemovalReason::kPreempt»);", "RemovalReason::kSequenceEnd",
      tests="engine_behaviour_test engine_test")
source("src/kv/numbered_log.h", "cache_test:NumberedLog.*")
fault("kv-729", "the oldest records stay",
      "if (records_.size() > room_) «records_.pop_front()»;", "records_.pop_back()")
fault("kv-730", "all records are told whatever was asked",
      "std::clamp<int64_t>(«from - oldest», 0, size)", "0")
fault("kv-746", "a record that there is no memory for leaves a gap behind those before it",
      "catch (const std::bad_alloc&) { «records_.clear();»", "")
source("src/engine/sequence.cpp", "engine_behaviour_test:Preemptions.*")
fault("kv-745", "a preemption costs nothing",
      ".request = request, .tokens = «reached_»}", "0")
