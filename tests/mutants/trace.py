# ---- what the cache tells
source("src/kv/cache_manager.cpp", "trace_test")
fault("trace-001", "a sequence that opens is not told of",
      "«impl_->config.observer->opened(id, false, rules);»",
      "")
fault("trace-002", "a sequence that closes is not told of",
      "«if (impl_->is_observed()) impl_->config.observer->closed(id, reason);»",
      "")
fault("trace-003", "a refused reservation is not told of",
      "«if (impl_->is_observed()) impl_->config.observer->refused(id, n);»",
      "")
fault("trace-004", "new pages are not told of",
      "id, static_cast<int32_t>(n), «blocks»,",
      "int64_t{0}")
fault("trace-005", "positions that share a page with sinks stay for ever",
      "«if (is_observed()) config.observer->passed(id, layer, begin, e.slot_end - e.slot_begin);»",
      "")
fault("trace-006", "tokens of another place are told",
      "is_known ? tokens.subspan(static_cast<size_t>(«sequence.length - n»), static_cast<size_t>(n))",
      "0")
source("src/kv/cache_stats.cpp", "trace_test")
fault("trace-007", "pages that stay are not told of",
      "event.retained = is_by_rule(reason) && «pool.references(e.page) > 1»;",
      "false")
fault("trace-008", "attention received is not told",
      "event.measured = «sequence.rule(layer).needs.attention»;",
      "false")
fault("trace-009", "a removal is not told",
      "«if (is_observed()) config.observer->removed(event);»",
      "")
source("src/kv/trim.cpp", "trace_test")
fault("trace-010", "a decision is not told",
      "«if (is_observed()) tell_decision(id, layer);»",
      "")
source("src/kv/fork.cpp", "trace_test")
fault("trace-011", "a fork is not told of",
      "«if (impl_->is_observed()) impl_->config.observer->forked(from, to);»",
      "")
source("src/kv/rewind.cpp", "trace_test")
fault("trace-012", "what was taken back is not told",
      "«if (impl_->is_observed()) impl_->config.observer->cut(id, length);»",
      "")
source("src/kv/reuse.cpp", "trace_test")
fault("trace-013", "regrets are not told",
      "«impl_->tree.regrets() - regrets»);",
      "int64_t{0}")
fault("trace-014", "hits are not told",
      "«impl_->tree.hits() - hits»);",
      "int64_t{0}")
fault("trace-015", "blocks behind a gap are told as before it",
      "if («static_cast<int64_t>(i) != told_to») {",
      "false")
fault("trace-017", "a tail that gives way is not told of",
      "«if (is_observed()) config.observer->cut(id_of(sequence), sequence.length);»",
      "")

source("src/kv/own_tail.cpp", "trace_test")
fault("trace-016", "a copy is not told of",
      "«if (is_observed()) config.observer->copied(id_of(sequence), layer);»",
      "")

source("src/kv/telling.cpp", "trace_test")
fault("trace-018", "a merge is not told of",
      "«if (is_observed()) config.observer->merged(id_of(sequence), layer);»",
      "")
fault("trace-019", "hashes know nothing of what was before",
      "sequence.told_hash = PrefixTree::hash_block( «sequence.told_hash», tokens",
      "uint64_t{0}")
fault("trace-020", "the next candidate is not told",
      "if («runner_up >= 0») { facts.runner_up_position",
      "false")
fault("trace-021", "the rule is asked for some of the candidates only",
      "if (!view[i].is_protected) open += «view[i].n_tokens»;",
      "0")
source("src/kv/fall.cpp", "trace_test")
fault("trace-022", "a fall is not told",
      "«if (cache.is_observed()) cache.config.observer->budget_changed(fall);»",
      "")
fault("trace-023", "a lift is not told",
      "«if (impl_->is_observed()) impl_->config.observer->budget_changed(change);»",
      "")

# ---- how it is written
source("src/trace/recorder.cpp", "trace_test")
fault("trace-026", "the contents' check is the length's",
      "const uint32_t check = trace::checksum(frame, «out.view(trace::kFrameHeader)»);",
      "out.view()")
fault("trace-027", "a sink that threw is called again",
      "«is_over_ = true; options_.sink = nullptr;»",
      "")
fault("trace-037", "what the sink does is lost",
      "is_flushing_ = false; return options_.sink != nullptr;",
      "if (MUT) { out_.cut(trace::kFrameHeader); } is_flushing_ = false; return options_.sink != nullptr;")
fault("trace-028", "an engine's end is not written",
      "«write(Tag::kEnd, [] {});»",
      "")
fault("trace-029", "times are written where none are wanted",
      "if («!options_.times») return 0;",
      "false")
fault("trace-030", "owners are told with every step",
      "if («owner.request == request && owner.session == session») return;",
      "false")

source("src/trace/record_leaving.cpp", "trace_test")
fault("trace-024", "an equal schedule is any schedule",
      "const bool is_plain = rules < plain_.size() && «plain_[rules][layer] == f.schedule»;",
      "true")
fault("trace-025", "a removal's length is always the sequence's",
      "if («e.length != length») out_.number(e.length);",
      "false")

# ---- how it is read
source("src/trace/frames.cpp", "trace_test")
fault("trace-031", "the length's check is not looked at",
      "if («trace::checksum(frame, bytes.substr(at, 4)) != trace::u32_at(bytes, at + 4)») {",
      "false")
fault("trace-032", "the contents' check is not looked at",
      "if («trace::checksum(frame, payload) != trace::u32_at(bytes, at + 8)») {",
      "false")
fault("trace-033", "frames may change places",
      "const uLong begun = crc32(0, number, «sizeof(number)»);",
      "0")
fault("trace-034", "what was cut off is whole",
      "extent.is_whole = «reader.is_ended()» && at == bytes.size();",
      "true")

source("src/trace/reader.h", "trace_test")
fault("trace-035", "a text may be longer than its record",
      "if («n > bytes_.size() - next_») refuse",
      "false")

source("src/trace/reader.cpp", "trace_test")
fault("trace-038", "all go by the engine's own rules",
      "state_.rules(open.sequence) = «open.rules»;",
      "0")

source("src/trace/read_leaving.cpp", "trace_test")
fault("trace-036", "trims have no rank",
      "e.rank = «state_.rank++»;",
      "0")

# ---- what is made of it
source("src/diagnose/trace_story.cpp", "explain_test")
fault("trace-059", "what left is told of another text of that number",
      "text.times_parked += text.is_parked ? 1 : 0; «open_.erase(c->sequence);»",
      "")
fault("trace-041", "a text that is read again is another text",
      "if («!is_same») continue;",
      "true")
fault("trace-042", "a fall is that of whatever leaves later",
      "«falls_.erase(commit->sequence);»",
      "")
fault("trace-043", "who needed the pages is not known",
      "loss.needed_by = «loss.by_fall ? fall->second : 0»;",
      "0")
fault("trace-044", "what is decided again is told again",
      "if («!text.lost.insert({e.layer, e.first_position}).second») return;",
      "false")
fault("trace-045", "turns are counted over all sessions",
      "const int64_t turn = «request->session == 0 ? 1 : ++turns_[request->session]»;",
      "1")
fault("trace-046", "the worst is the last",
      "if (removal.measured && («!layer->is_measured || removal.mass > layer->worst.mass»)) {",
      "true")
fault("trace-047", "blocks that were found count as computed",
      "text.blocks.push_back({b->hash, «end <= text.found»});",
      "false")
fault("trace-072", "what is closed has not ended",
      "text.has_ended = «!text.is_parked»;", "false")
source("src/diagnose/explain.cpp", "explain_test")
fault("trace-048", "earlier texts count as later ones",
      "if («place.text <= i») continue;",
      "place.text == i")
fault("trace-049", "layers that lost it kept it",
      "if (was_there && «!is_lost») block.kept_in.push_back(layer);",
      "true")
fault("trace-050", "a text ends a token early",
      "found.push_back({position_of(at), «position_of(at + wanted.size() - 1) + 1»});",
      "position_of(at + wanted.size() - 1)")
fault("trace-051", "another turn is told",
      "if («request->turn == turn» && request->begin < end) found.push_back",
      "true")
fault("trace-052", "losses of neighbours are its own",
      "if («e.first_position < first || e.first_position >= first + size») continue;",
      "e.first_position < first")
fault("trace-053", "a window that is too small by one",
      "kept_by_window(rule, «text.longest - e.first_position»);",
      "text.longest - e.first_position - 1")
fault("trace-054", "sinks that end before the block does",
      "out.sinks = «e.first_position + e.n_tokens»; out.sinks_fit = true;",
      "e.first_position")
fault("trace-071", "a block is as old as its text's first position",
      "if («end > first») break;", "true")
source("src/diagnose/kept_by.cpp", "explain_test")
fault("trace-055", "sinks up to where the block begins",
      "const int64_t sinks = «trim.first_position + 1»;",
      "trim.first_position + 2")
fault("trace-056", "a budget one larger than need be",
      "return gives(least) ? rule_with(«least») : \"\";",
      "least + 1")
fault("trace-057", "sinks without room for them",
      "if (s.budget != kUnlimited && «!leaves_choice(s, at.block_size)») return std::nullopt;",
      "false")
fault("trace-058", "sinks that were asked for stay beside the new ones",
      "const Parts parts = parts_without(at.rule, «\"sinks\"»);",
      "\"no such option\"")

source("src/trace/reader.cpp", "trace_test:Traces.KnowEvery*")
fault("trace-060", "a reason that nobody knows is read",
      "if («finish_reason_name(f.reason) == std::string_view(\"unknown\")») {",
      "false")

source("src/engine/tracing.cpp", "trace_test")
fault("trace-061", "a trace does not say what the engine took of its device",
      "«now.device.reserved_bytes = memory_bytes;»", "")
source("src/engine/engine_impl.h", "trace_test")
fault("trace-062", "memory is not told when the engine ends",
      "~Impl() { «trace_memory();» }", "")
source("src/trace/recorder.cpp", "trace_test")
fault("trace-063", "without times memory makes equal runs differ",
      "if («!options_.times») return; write(Tag::kMemory,", "false")

source("examples/paddock/replay.cpp", "cli_test:CliTrace.*")
fault("trace-064", "a trace is read as lines of requests",
      "return in && «begins == paddock::kTraceMagic»;", "false")

source("src/kv/telling.cpp", "trace_test")
fault("trace-073", "what is decided again is told as new",
      ".is_replayed = «is_known(sequence, sequence.length)»};", "false")
source("src/engine/tracing.cpp", "trace_test")
fault("trace-074", "no rule is told to be compact",
      "told.is_compact = «rule.positions == Positions::kCompact»;", "false")
source("src/kv/reclaim.cpp", "trace_test")
fault("trace-075", "what is reclaimed has no name",
      "event.hash = «tree.hash_of(node)»;", "0")

source("examples/paddock/run_again.cpp", "cli_test:CliTrace.*")
fault("trace-065", "what is run again has the rule that was",
      "if («!rule.empty()») settings.kv_policy = rule;", "false")
fault("trace-066", "what is run again has the memory that was",
      "if («!budget.empty()») settings.kv_budget = budget;", "false")

source("src/trace/record_leaving.cpp", "trace_test")
fault("trace-081", "whose need a preemption was is not recorded",
      "out_.number(p.session); out_.number(«p.request»);", "0")
fault("trace-082", "a preemption begins behind its removals",
      "out_.number(«state_.events - static_cast<int64_t>(p.first_event)»);", "0")
source("src/trace/recorder.cpp", "trace_test")
fault("trace-083", "a miss does not say that it was there before",
      "«miss.again» ? trace::kIsAgain : 0", "false")
