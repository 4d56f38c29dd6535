# Faults of the area "engine": see faults.py.

source("src/engine/requests.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-001", "an event callback that threw is called again",
      "«if (hook_failures_ > 0) return;» // it threw once",
      "")
fault("engine-002", "nobody is told that the event callback threw",
      "on_event(event); } catch (...) { «++hook_failures_;»",
      "")
fault("engine-006", "prompt that fills the context exactly refused",
      "if (total > context) {",
      "if (MUT ? total >= context : total > context) {")
fault("engine-015", "held-back text is not delivered at the end",
      "const size_t n = «std::exchange(request.undelivered, 0)»;",
      "static_cast<size_t>(request.undelivered = 0)")
fault("engine-020", "cancel() does not reach feed()/forward()",
      "if (!id) cancel_feed_ = true;",
      "if (!id && !MUT) cancel_feed_ = true;")
fault("engine-031", "an id one beyond the vocabulary is taken",
      "«tokens[i] >= vocab») {",
      "tokens[i] > vocab")
fault("engine-032", "the first id is refused",
      "if («tokens[i] < 0» || tokens[i] >= vocab",
      "tokens[i] <= 0")
fault("engine-033", "nothing may follow what is pending",
      "const bool is_pending = «session != nullptr && session->sequence.reached() < before»;",
      "false")
fault("engine-034", "proposals leave the answer out",
      "const int64_t wanted = «total + std::max(0, max_tokens)»;",
      "total")
fault("engine-035", "a prompt that fits the pool exactly is refused",
      "if («prompt_pages > setup.pool.n_pages») {",
      "prompt_pages >= setup.pool.n_pages")
fault("engine-036", "a prompt larger than the pool is queued",
      "if (prompt_pages > setup.pool.n_pages) { throw",
      "if (prompt_pages > setup.pool.n_pages && !MUT) { throw")
fault("engine-045", "a host that cancels gets a rest",
      "request.undelivered = «reason == FinishReason::kCancelled ? 0 : request.text.take().size()»;",
      "request.text.take().size()")
fault("engine-046", "no proposals where the pool is full",
      "if («reason == FinishReason::kContext || reason == FinishReason::kKvFull») {",
      "reason == FinishReason::kContext")
fault("engine-047", "no proposals where the context ends",
      "if (reason == FinishReason::kContext || reason == FinishReason::kKvFull) { const",
      "if ((reason == FinishReason::kContext && !MUT) || reason == FinishReason::kKvFull) { const")
fault("engine-048", "proposals count the answer twice",
      "proposals_for(request.sequence, «now - made + request.options.max_tokens», now + 1);",
      "now + request.options.max_tokens + 64")
fault("engine-049", "a session stays busy",
      "«gone->session->busy = false;»",
      "")
fault("engine-050", "a request's sequence is never closed",
      "«gone->own = nullptr;»",
      "static_cast<void>(gone->own.release());")
fault("engine-051", "a session forgets what its request said",
      "«gone->session->busy = false;»",
      "Sequence& text = gone->session->sequence; text.tokens.resize(static_cast<size_t>(text.computed())); gone->session->busy = false;")
fault("engine-052", "take() gives out the request of generate()",
      "if («id == own_request_») return std::nullopt;",
      "false")
fault("engine-143", "a discarded request's result is kept",
      "if («gone->discarded») { board.erase(gone->id);",
      "false")
fault("engine-470", "status() knows nothing of one that was just added",
      "«board.update(answer->id, answer->shown);»", "")
fault("engine-471", "status() does not say that one has ended",
      "«board.update(gone->id, status_of(gone->result));» finished.insert(", "")
fault("engine-472", "a request whose result was taken is still known",
      "if (node.empty()) return std::nullopt; «board.erase(id);»", "")
fault("engine-473", "the request of a generate() is known when that has returned",
      "«board.erase(id);» return std::move(finished.extract(id).mapped());", "")
fault("answers-002", "all answers have one seed",
      "std::make_unique<Request>(next_request_, i, session,",
      "std::make_unique<Request>(next_request_ + (MUT ? i : 0), MUT ? 0 : i, session,")
fault("answers-003", "a session takes several answers",
      "if («options.n > 1 && session != nullptr») {",
      "false")
fault("answers-004", "generate() begins several answers",
      "if («options.n > 1») { fail(ErrorCode::kInvalidArgument, \"n is {}; generate()",
      "false")
fault("answers-005", "trims of the session's earlier turns count again",
      "request.sequence.trims() - «request.trims_before»);",
      "0", tests="engine_behaviour_test")
fault("answers-007", "what has ended is told as ended of a generate() under way",
      "if (at != finished.end() && «at->first == own_request_») ++at;",
      "false")
fault("answers-008", "of an answer that ends half-way nothing is handed on",
      "request.finished = true; «scheduler->hand_over(request);»",
      "")

fault("engine-137", "a request that has ended ends again: an error at the last token is a length",
      "«if (request.finished) return;» try { request.text.finish();",
      "")

source("src/engine/scheduler.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-025", "kv_full reported as context",
      'batch.endings.push_back({&request, FinishReason::kKvFull, ""});',
      'batch.endings.push_back({&request, MUT ? FinishReason::kContext : FinishReason::kKvFull, ""});')
fault("engine-043", "cancel(id) cancels all",
      "(«!id || request->id == *id»)) request->cancelled = true;",
      "true")
fault("engine-074", "cancel() without a number spares what is queued",
      "if (request != nullptr && (!id || request->id == *id)) «request->cancelled = true;»",
      "if (id || request->running) request->cancelled = true;")

source("src/engine/scheduler.cpp", "engine_behaviour_test engine_test")
fault("scheduler-001", "waiting does not count",
      "request->rank = «step_» - int64_t{options.priority}", "0")
fault("scheduler-002", "priorities do not count",
      "step_ - «int64_t{options.priority} * kStepsPerLevel»;", "0")
fault("scheduler-003", "the least important goes first",
      "step_ - «int64_t{options.priority}» * kStepsPerLevel;", "-int64_t{options.priority}")
fault("scheduler-005", "one more may wait than max_queued says",
      "std::count_if(requests_.begin(), requests_.end(), waits) + «n» > max) {",
      "n - 1")
fault("answers-020", "several answers wait as one",
      "std::count_if(requests_.begin(), requests_.end(), waits) + «n» > max) {",
      "1")
fault("scheduler-006", "running requests count as waiting",
      "return «!request->running && !request->finished»;", "!request->finished")
fault("scheduler-008", "who has been parked in this step runs all the same",
      "if (token_shares_[i] > 0 && «running_[i]->running») place(", "true")
fault("answers-022", "those that await a prompt compute it, too",
      "} else if («running_[i]->awaits != nullptr» || follows(i)) {", "false")
fault("answers-023", "those that await a prompt list its blocks as they come",
      "if (!request->decoding() && «request->awaits == nullptr») reuse_blocks", "true")
fault("scheduler-030", "small batches serve some sequences only",
      "const int64_t room = «max_step_tokens(setup_.options)» - n_decoding;",
      "setup_.options.batch_size")
fault("scheduler-031", "those that decode do not count for the batch",
      "max_step_tokens(setup_.options) - «n_decoding»;", "0")
fault("scheduler-032", "prompts read on as if nobody decoded",
      "const bool mixed = «n_decoding > 0»;", "false")
fault("scheduler-033", "the share of a step that also decodes has no bound",
      "mixed ? «std::min<int64_t>(room, setup_.options.mixed_prefill)» : room", "room")
fault("scheduler-034", "what short prompts leave is lost",
      "«budget -= all;» --unsettled;", "budget -= share;")
fault("scheduler-035", "a short prompt waits for a long one",
      "const double share = «budget / static_cast<double>(unsettled)»; for",
      "budget")
fault("scheduler-036", "prompts in a mixed step take what they like",
      "token_shares_[i] = mixed ? «affordable(running_[i]->sequence, share)»",
      "setup_.chunk")
fault("scheduler-037", "prompts bring more than there is work for",
      "if (any && «budget < -kRounding») token_shares_[i] = 0;", "false")
fault("scheduler-038", "where there are more prompts than there is work for the last ones starve",
      "(«static_cast<size_t>(step_) + k») % n;", "k")
fault("scheduler-080", "where one token costs more than all there is, no prompt goes on",
      "if («any && budget < -kRounding») token_shares_[i] = 0;", "budget < -kRounding")
fault("scheduler-070", "who needs the same blocks computes them, too",
      "} else if (running_[i]->awaits != nullptr || «follows(i)») {", "false")
fault("scheduler-071", "one waits for blocks that begin alike and go on otherwise",
      "std::equal(its.begin(), «its.begin() + end», sequence.tokens.begin())", "its.begin() + computed")
fault("scheduler-072", "the last token waits for a block that nobody can give it",
      "if («end >= sequence.length()») return false;", "end > sequence.length()")
same("scheduler-073", "one waits for blocks that the rules do not share",
     "if («!cache_.keeps_blocks(sequence.rules())») return false;", "false",
     "whose rules share nothing shares with nobody: it is only found out sooner")
fault("scheduler-074", "the last token of a prompt is listed, too",
      "const int64_t end = std::min(«sequence.length() - 1», sure_length(sequence, &request));", "sequence.length()")
fault("scheduler-076", "nobody is told what was missing",
      "if («!request.miss_asked») { request.miss_asked = true;", "false")
fault("scheduler-083", "what a parked text missed counts as looked for again",
      "sequence.length() - 1, «sequence.reached()»);", "0", tests="sharing_test")
fault("numbers-016", "a prompt is looked for once a step",
      "«request.prefix_asked = true;»", "")
fault("numbers-017", "what is found counts not as found",
      "«prefix_hits_ += found;»", "")
fault("scheduler-077", "a miss is asked for at every step",
      "«request.miss_asked = true;»", "")
fault("scheduler-075", "what comes back counts as reused",
      "std::max<int64_t>(0, sequence.computed() - «reached»);", "0")
fault("scheduler-039", "what a token sees costs nothing",
      "(1 + «seen / setup_.positions_per_token»);", "0")
fault("scheduler-040", "a window costs what everything costs",
      "seen += «std::min(middle, max)»;", "middle")
fault("scheduler-041", "what has been computed before counts as new",
      "std::clamp<int64_t>(«sequence.reached() - sequence.computed()», 0, got);", "0")
fault("scheduler-042", "a prompt's last part is taken for its end in each step",
      "request.decoding(), «got == left»});", "true")
fault("scheduler-043", "who has to wait for pages ends",
      "if («is_alone(&request)») batch.endings.push_back({&request, FinishReason::kKvFull", "true")
fault("scheduler-044", "one alone waits for ever",
      "if (is_alone(&request)) batch.endings.push_back({&request, FinishReason::kKvFull",
      "if (!MUT && is_alone(&request)) batch.endings.push_back({&request, FinishReason::kKvFull")

source("src/engine/admission.cpp", "engine_behaviour_test engine_test")
fault("scheduler-010", "sessions are not counted as sequences",
      "auto live = «static_cast<int64_t>(sessions_.size())»;", "0")
fault("scheduler-011", "running requests are not counted as sequences",
      "if («request->session == nullptr») ++live;", "false")
fault("sequence-020", "requests that run leave their places to sessions",
      "if (request->session == nullptr) «++live;»", "")
fault("scheduler-012", "a session's request takes a second place",
      "if («request->session == nullptr») ++live;",
      "true")
fault("scheduler-013", "admission forgets what running ones will need",
      "«left -= reader.serves(*request) ? pages_beside(request->sequence) : "
      "pages_due(request->sequence) - pages_followed(*request);»", "")
fault("answers-021", "each answer asks for the whole prompt's pages",
      "const int64_t pages = «now.reader.serves(request)» ? pages_beside(sequence)", "false")
fault("scheduler-014", "a session's request waits for a place",
      "const bool needs_place = «request.session == nullptr»;", "true")
fault("scheduler-015", "one sequence more than max_sequences",
      "if (needs_place && «now.live >= setup_.options.max_sequences») {", "now.live > setup_.options.max_sequences")
fault("scheduler-016", "a request that could wait for a place fails",
      "if («now.any») return true; batch.endings", "false")
fault("scheduler-017", "an exact fit is refused",
      "if (now.any && «pages > now.left» && !(may_share", "pages >= now.left")
fault("scheduler-018", "one alone has to fit, too",
      "if («now.any && pages > now.left» && !(may_share", "pages > now.left")
fault("scheduler-019", "a big one is passed for ever",
      "return «request.times_passed < kMaxPassed»;", "true")
fault("scheduler-020", "nobody may pass",
      "return request.times_passed < kMaxPassed;",
      "return !MUT && request.times_passed < kMaxPassed;")
fault("scheduler-021", "passing is not counted",
      "if (!requests_[before]->running) «++requests_[before]->times_passed;»", "")
fault("scheduler-022", "places taken in this step are not counted",
      "«if (needs_place) ++now.live;» now.left -= pages;", "")
fault("scheduler-023", "pages promised in this step are promised again",
      "«now.left -= pages;» now.any = true;", "")
fault("scheduler-024", "no block more is asked for than the prompt takes",
      "const int64_t ahead = «std::max(block, interval - sequence.length() % interval)»;",
      "setup.policies.interval() == 0 ? 0 : std::max(block, interval - sequence.length() % interval)")
fault("scheduler-025", "more is asked for than the context admits",
      "std::min<int64_t>(«setup.options.context», sequence.length() + ahead);",
      "int64_t{1} << 40")
fault("scheduler-026", "pages of idle sessions cannot be had",
      "«cache_.pages_active()» - cache_.pages_listed(tables_);", "cache_.pages_listed(tables_)")
fault("scheduler-027", "pages of running requests can be had",
      "cache_.pages_active() - «cache_.pages_listed(tables_)»;", "int64_t{0}")
fault("scheduler-078", "who begins alike is let in by what it would need alone",
      "pages_apart(sequence) - «pages_followed(request)»;", "int64_t{0}", tests="engine_behaviour_test")
fault("scheduler-079", "of those let in each is thought to need all of its beginning",
      "pages_due(request->sequence) - «pages_followed(*request)»;", "int64_t{0}", tests="engine_behaviour_test")

source("src/engine/answers.cpp", "engine_behaviour_test")
fault("answers-030", "nobody is waited for that awaits a prompt and goes on",
      "other->awaits == &request && «!other->wants_to_stop()»;", "false")
fault("answers-031", "a pass that nobody wants any more goes on",
      "other->awaits == &request && «!other->wants_to_stop()»;", "true")
fault("answers-032", "one that has its own prompt awaits another's",
      "if (running_[i] == reader || «!running_[i]->is_new()») continue;", "false")
fault("answers-033", "what another answer computed does not count as cached",
      "«other->result.cached_tokens = other->result.prompt_tokens;»", "")
fault("answers-034", "what was handed on does not count as cached",
      "«other->result.cached_tokens = other->sequence.computed();»", "")
fault("answers-035", "an answer that goes on gets what a finished one has of its own",
      "request.sequence.is_open() && «request.reads_prompt()» && request.sequence.computed() > 0;", "true")
fault("answers-036", "one place for a copy is not asked for",
      "«2 * int64_t{setup.options.kv.block_size}»", "0")
source("src/kv/fork.cpp", "engine_behaviour_test")
fault("answers-040", "a fork has no prompt",
      "«static_cast<SequenceFacts&>(fork) = origin;»",
      "static_cast<SequenceFacts&>(fork) = origin; fork.prompt = 0;")
fault("answers-041", "a fork's blocks may be reclaimed",
      "for (const int32_t node : fork.shared) «impl_->tree.lock(node, false);»", "")
fault("answers-055", "a fork counts as a prompt that found the blocks",
      "impl_->tree.lock(node, «false»);",
      "true", tests="engine_behaviour_test:Pins.*")
fault("answers-042", "a fork's pages are not its own, too",
      "if (e.slot_begin == 0) «impl_->pool.retain(e.page);»", "")
fault("answers-043", "a page of sinks counts twice",
      "if («e.slot_begin == 0») impl_->pool", "true")
fault("answers-044", "a fork's positions are not counted",
      "«impl_->counters[layer].tokens += table.tokens;»", "")
fault("answers-045", "a fork has dropped nothing",
      "«static_cast<SequenceFacts&>(fork) = origin;»",
      "static_cast<SequenceFacts&>(fork) = origin; fork.trims = 0;")
fault("answers-046", "a fork has received no attention",
      "«to.records.assign(from.records.begin(), from.records.end());»",
      "to.records.resize(from.records.size());")
fault("answers-047", "a fork's queries do not move",
      "«to.rotations.assign(from.rotations.begin(), from.rotations.end());»", "")
source("src/engine/engine_numbers.cpp", "engine_behaviour_test")
fault("numbers-001", "what is parked counts as waiting",
      "const int32_t parked = «scheduler->n_parked()»;", "0")
fault("numbers-013", "how far a request is stays as it was",
      "request.shown = now; «board.update(request.id, now);»", "")
fault("numbers-014", "prompts are counted without what was cached",
      "s.prompt_tokens += «request.result.prompt_tokens»;",
      "request.result.prompt_tokens - request.result.cached_tokens")
fault("numbers-015", "cached tokens are not counted",
      "«s.cached_tokens += request.result.cached_tokens;»", "")
fault("numbers-002", "the first token counts as a gap",
      "const bool is_first = «request.result.tokens.size() == 1»;", "false")
fault("numbers-003", "gaps are counted from the beginning",
      "«request.last_token_at = now;»", "")
fault("numbers-004", "the time in the queue counts at every step",
      "std::exchange(request.queue_noted, «true»)", "false")
fault("numbers-005", "who never ran has waited, too",
      "if (!request.sampler || std::exchange",
      "if ((!MUT && !request.sampler) || std::exchange")
source("src/engine/requests.cpp", "engine_behaviour_test")
fault("numbers-008", "ends are counted without their reasons",
      "++s.requests_finished[«static_cast<size_t>(gone->result.finish_reason)»];", "0")
source("include/paddock/engine_stats.h", "engine_behaviour_test")
fault("numbers-009", "a bound lies in the bucket above it",
      "«seconds > kLatencyBounds[at]»", "seconds >= kLatencyBounds[at]")
source("src/report/engine_stats_text.cpp", "engine_behaviour_test")
fault("numbers-010", "buckets are not summed up",
      "below += h.counts[i]; const std::string bound",
      "below = (MUT ? 0 : below) + h.counts[i]; const std::string bound")
source("src/engine/sessions.cpp", "engine_behaviour_test")
fault("sequence-021", "one session more than max_sequences",
      "if («used < setup.options.max_sequences») return;", "used <= setup.options.max_sequences")
source("src/engine/sequence.cpp", "engine_behaviour_test engine_test")
fault("sequence-010", "a prompt that was taken back decides all the same",
      "if (tables_) «cache_.restore_prompt(*tables_, n_told_ > 0 ? prompt_ends_[n_told_ - 1].end : 0);»", "")
fault("sequence-022", "a fork has no prompts",
      "«prompt_ends_ = other.prompt_ends_;»", "")
fault("sequence-023", "a fork's text counts as new",
      "«reached_ = other.reached();»", "")
same("answers-050", "a fork is told its prompt again",
     "cache_.fork(other.tables(), *tables_); «n_told_ = other.n_told_;»", "",
     "Prompts end alike in both, and what was received before an observation began is forgotten at that length already")
fault("sequence-001", "a sequence that comes back does not know how far it was",
      "«reached_ = reached();»", "")
fault("sequence-003", "a sequence that comes back has no prompts",
      "tables_ = cache_.open(&log_, rules_, &protected_); «n_told_ = 0;»", "n_told_ = prompt_ends_.size();")
fault("sequence-004", "all prompts are told at once",
      "«prompt_ends_[n_told_].said_at <= at»; ++n_told_", "true")
fault("sequence-005", "steps run on through where a prompt became known",
      "return «n_told_ == prompt_ends_.size()» ? max", "true")
fault("sequence-006", "a truncated sequence comes back longer",
      "«reached_ = std::min(had, length);»", "")
fault("sequence-007", "prompts that were taken back stay",
      "return «prompt.end > length»;", "false")
fault("sequence-008", "truncate keeps pending tokens",
      "«tokens.resize(static_cast<size_t>(length));»", "")
fault("sequence-009", "a prompt begins where nothing was",
      "prompt_ends_.push_back({«reached()», end});", "0")

source("src/engine/sequence.cpp", "replay_test")
fault("sequence-024", "what rules decided of a text is forgotten when it is parked",
      "cache_.open(«&log_», rules_, &protected_);", "nullptr")
fault("sequence-025", "a fork's rules are asked again",
      "«log_.begin_as(other.log_, other.reached());»", "")
fault("sequence-026", "a text that is taken back while it is parked keeps later decisions",
      "«log_.cut(length);»", "")
fault("sequence-027", "a text that is taken back while it is computed again keeps later decisions",
      "«cache_.forget_decisions(*tables_, length);»", "")
fault("sequence-028", "requests take no memory for what rules will decide",
      "«log_.make_room(std::max<int64_t>(0, entries - log_.n_entries()));»", "", tests="engine_test")

source("src/engine/step_runner.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
same("engine-012", "forward that throws is not rolled back",
     "} catch (...) { cache_.rollback_all(); throw;",
     "} catch (...) { if (!MUT) cache_.rollback_all(); throw;",
     "Only a device that has failed throws there; it is not used again, and sequences close with what they reserved")
fault("engine-057", "a pass that was stopped is not rolled back",
      "if (!forward(parts, stop)) { «cache_.rollback_all();» return {};",
      "")
fault("engine-082", "feed() gives the logits after the chunk's first token",
      "planner_->add(part.sequence->tables(), tokens) + «part.n_tokens - 1»",
      "0")
fault("engine-130", "two requests that sample on the device get each other's tokens",
      "results_[i].token = tokens[«static_cast<size_t>(part_rows_[i] - n_host_rows_)»];",
      "sample_rows_.size() - 1 - static_cast<size_t>(part_rows_[i] - n_host_rows_)", tests="cuda_engine_test")
fault("engine-131", "logits go to the host for requests whose tokens the device chooses",
      "if ((«ops_.samples() && leaves_choice(parts[i])») != on_device) continue;",
      "false", tests="cuda_engine_test")
fault("engine-132", "the device chooses for a host that wants log-probabilities",
      "!part.request->sampler->adjusts() && «!part.request->options.logprobs» &&",
      "true", tests="cuda_engine_test engine_test_cuda:-*RealModel*:Engine.StopStrings*:Hosts.May*:NoMemory.ChatTemplates*")

fault("engine-142", "the device chooses in place of a host's processor",
      "!part.request->options.logprobs && «!part.request->options.logits_processor»;",
      "true", tests="cuda_engine_test")

source("src/engine/sessions.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-026", "a cancelled feed cancels all later ones",
      "«cancel_feed_ = false;» std::span<const float> logits;",
      "")
fault("engine-027", "feed that throws: pending tokens fed twice",
      "} catch (...) { settle();",
      "} catch (...) { if (!MUT) settle();")
fault("engine-075", "a session may be used while a request runs in it",
      "if («it->second->busy») fail(",
      "false")
fault("engine-077", "events of a closed session come with the next call",
      "sessions.erase(id); «deliver_events();»",
      "")
fault("engine-078", "events of a truncation come with the next call",
      "sequence.truncate(length); «deliver_events();»",
      "")
fault("engine-080", "a failed feed loses what was pending",
      "sequence.tokens.resize(static_cast<size_t>(«std::max(before, sequence.computed())»));",
      "sequence.computed()")
fault("engine-083", "truncate to a negative length",
      "if («length < 0» || length > sequence.length()) {",
      "false")
fault("engine-084", "truncate beyond the end",
      "if (length < 0 || «length > sequence.length()») {",
      "false")
fault("engine-089", "forward: prompt_tokens beyond the input",
      "if (prompt_tokens < 0 || «prompt_tokens > static_cast<int64_t>(tokens.size())») {",
      "false")
fault("engine-090", "forward: the whole input may not be prompt",
      "prompt_tokens > static_cast<int64_t>(tokens.size())) {",
      "prompt_tokens > static_cast<int64_t>(tokens.size()) - (MUT ? 1 : 0)) {")
fault("engine-091", "forward has no prompt",
      "«sequence.set_prompt(prompt_tokens);» cancel_feed_ = false; feed_rows",
      "")
fault("engine-092", "feed has no prompt",
      "target.sequence.set_prompt(«prompt_tokens»); cancel_feed_ = false; std::span",
      "0")
fault("engine-093", "rows of a second tile begin anew",
      "const int64_t position = first + «begin» + i;",
      "0")
fault("engine-094", "a row callback's false is ignored",
      "if («!hand_out(on_logits, position, step_runner->row(i))») return false;",
      "(hand_out(on_logits, position, step_runner->row(i)), false)")
fault("engine-095", "the last position of the context is not fed",
      "if («end <= longest») return;",
      "end < longest")
fault("engine-096", "events of a feed come with the next call",
      "«deliver_events();» deliver_trace(); check_abandoned(); if (!on_step",
      "")
fault("engine-133", "a session is closed while it is fed",
      "if («session(id).fed») {",
      "(session(id).fed && false)")
fault("engine-134", "a session can never be closed after a feed",
      "~Feeding() { «fed = false;» }",
      "")
fault("engine-135", "a feed that is refused has said where the prompt ends",
      "check_context(target.sequence, tokens.size()); target.sequence.set_prompt("
      "prompt_tokens); cancel_feed_ = false; feed_session(target, tokens, [&] { feed_rows",
      "if (!MUT) check_context(target.sequence, tokens.size()); "
      "target.sequence.set_prompt(prompt_tokens); cancel_feed_ = false; if (MUT) "
      "check_context(target.sequence, tokens.size()); feed_session(target, tokens, [&] { feed_rows")
fault("engine-136", "an engine that was destroyed hands out logits all the same",
      "deliver_trace(); «check_abandoned();» if (!on_step",
      "")
fault("engine-097", "a feed names the wrong position",
      "fail(ErrorCode::kCancelled, \"cancelled at position {}\", «first»);",
      "0")
fault("engine-098", "a full pool names the wrong position",
      "setup.pool.n_pages, «first», kept.empty()",
      "0")

source("src/engine/engine_numbers.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-029", "total.attention_seconds forgotten",
      "stats.total.attention_seconds += layer.attention_seconds;",
      "if (!MUT) stats.total.attention_seconds += layer.attention_seconds;")
fault("engine-088", "total.kv_overflows forgotten",
      "«stats.total.kv_overflows += layer.kv_overflows;»",
      "", tests="engine_test")

source("src/engine/settings.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-085", "rules change while requests wait",
      "if («n_requests > 0» || !sessions.empty()) {",
      "false")
fault("engine-086", "rules change under open sessions",
      "if (n_requests > 0 || «!sessions.empty()») {",
      "false")
fault("engine-087", "the longest sequence is one less where it fits exactly",
      "return «pages_for(session, rules, positions) <= setup.pool.n_pages»;",
      "pages_for(session, rules, positions) < setup.pool.n_pages")

source("src/engine/engine_options.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-101", "threads: one more",
      'check_range("threads", threads, 0, «1024»);',
      "1025")
fault("engine-102", "batch_size: one more",
      'check_range("batch_size", batch_size, 1, «65535»);',
      "65536")
fault("engine-103", "max_sequences: none is taken",
      'check_range("max_sequences", max_sequences, «1», kMaxSequences);',
      "0")
fault("engine-104", "block_size: one less",
      'check_range("kv.block_size", kv.block_size, 1, «4096»);',
      "4095")
fault("engine-105", "context: any",
      'check_range("context", context, 0, «kMaxPositions»);',
      "INT64_MAX")
fault("engine-106", "event_capacity: one more",
      'check_range("kv.event_capacity", kv.event_capacity, 0, «1\'000\'000»);',
      "1'000'001")
fault("engine-107", "budget_share: not a number",
      "if («!(kv.budget_share >= 0 && kv.budget_share <= 1)») {",
      "kv.budget_share < 0 || kv.budget_share > 1")
fault("engine-108", "budget_share: less than nothing",
      "if (!(«kv.budget_share >= 0» && kv.budget_share <= 1)) {",
      "true")
fault("engine-109", "share and bytes at once",
      "if («kv.budget_share > 0 && kv.budget_bytes > 0») {",
      "false")
fault("engine-110", "precision: any number",
      "if («precision != Precision::kFast && precision != Precision::kReference») {",
      "false")

source("src/engine/setup.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-111", "reference: keys and values as f16",
      "o.kv.type = «o.precision == Precision::kReference ? KvType::kF32 : KvType::kF16»;",
      "KvType::kF16")
fault("engine-113", "a bounded rule has the model's context",
      "o.context = «policies.has_unbounded_layer()» ? config.context_length : kMaxPositions;",
      "true")
fault("engine-114", "the pool holds one sequence",
      "const int64_t all = std::min(«one * o.max_sequences», kTooMany);",
      "one")
fault("engine-115", "a budget's last page is left out",
      "return pages_in(«o.kv.budget_bytes», static_cast<uint64_t>(s.pool.geometry.page_bytes()));",
      "o.kv.budget_bytes - 1")
fault("engine-116", "a pool beyond all numbers is tried",
      "rules < setup.n_rules() && «setup.pool.n_pages > kMaxPages»; ++rules) {",
      "false")
fault("engine-117", "the budget told is the one asked for",
      "«s.options.kv.budget_bytes = static_cast<uint64_t>(n) * s.pool.geometry.page_bytes();»",
      "if (s.options.kv.budget_bytes == 0) s.options.kv.budget_bytes = "
      "static_cast<uint64_t>(n) * s.pool.geometry.page_bytes();")
fault("engine-118", "a pool too small for its rules is taken",
      "if («s.pool.n_pages >= least») return;",
      "true")

source("src/kv/kv_type.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-112", "bf16 is kept as f16",
      "DType element_type(KvType type) { return «kKvElements[row_of(type)].type»; }",
      "kKvElements[row_of(type == KvType::kBF16 ? KvType::kF16 : type)].type")
fault("engine-425", "a KV type is read as the one before it",
      "return static_cast<KvType>(«i + 1»);",
      "i", tests="engine_behaviour_test")
fault("engine-426", "a KV type beyond all has a name",
      "return «row_of(type) < std::size(kKvElements)» ? kKvElements[row_of(type)].name",
      "row_of(type) % 3 < std::size(kKvElements)", tests="engine_behaviour_test")

source("src/engine/make_engine.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-119", "a share is all that is free",
      "static_cast<uint64_t>(«setup.options.kv.budget_share * static_cast<double>(available)»);",
      "static_cast<double>(available)")
fault("engine-120", "memory_bytes() leaves the pool out",
      "memory_bytes = weights->bytes + «pool» + others;",
      "0")

source("src/engine/request.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-121", "max_tokens below 0",
      "if («options.max_tokens < 0») {",
      "false")
fault("engine-122", "max_tokens 0 refused",
      "if («options.max_tokens < 0») {",
      "options.max_tokens <= 0")
fault("engine-123", "more alternatives than tokens",
      "const int32_t most = «std::min(kMaxLogprobs, vocab_size)»;",
      "kMaxLogprobs")
fault("engine-124", "logprobs below 0",
      'check_range("logprobs", *options.logprobs, «0», most);',
      "-1000000")
fault("engine-125", "an empty stop string",
      "if («stop.empty()») fail(",
      "false")
fault("engine-126", "a stop string that is no UTF-8",
      "if (const size_t at = find_invalid_utf8(stop); «at != std::string::npos») {",
      "false")
fault("engine-127", "prompt_tokens counts the whole session",
      "result.prompt_tokens = «sequence.length() - reached»;",
      "sequence.length()")
fault("engine-128", "penalties do not see the prompt",
      "«sampler->observe(sequence.tokens);»",
      "")

fault("answers-051", "no answer is asked for",
      'check_range("n", options.n, «1», kMaxAnswers);', "0")
fault("answers-052", "one answer too many",
      'check_range("n", options.n, 1, «kMaxAnswers»);', "kMaxAnswers + 1")
fault("answers-053", "answers do not know which they are",
      "«result.answer = answer;»", "")
source("src/engine/request.h", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-008", "deadline does not stop a running forward pass",
      "return is_cancelled() || overdue();",
      "return is_cancelled() || (!MUT && overdue());")
fault("engine-044", "a cancelled request does not stop its pass",
      "return is_cancelled() ||",
      "return (!MUT && is_cancelled()) ||")
fault("engine-140", "nobody looks at a request's stop_token",
      "return cancelled || «options.stop_token.stop_requested()»;",
      "false")
fault("engine-129", "an answer's first step counts as the prompt's",
      "return «sequence.computed() >= prompt_end» && sequence.length()",
      "sequence.computed() > prompt_end")

source("src/engine/request.h", "engine_behaviour_test engine_test")
fault("scheduler-004", "of equals the later goes first",
      "a.rank < b.rank : «a.id < b.id»;", "a.id > b.id")

source("src/engine/scheduler.cpp", "engine_behaviour_test:Waiting.* engine_behaviour_test")
fault("scheduler-088", "a stop that is requested of one that waits is not seen",
      "«request->stop_note.emplace(options.stop_token, NoteStop{&stop_noted_});»", "")
fault("scheduler-089", "of several deadlines the one that was set last counts",
      "next_deadline_ = «std::min(next_deadline_.value_or(*options.deadline), *options.deadline)»;",
      "*options.deadline")
fault("scheduler-090", "after one deadline no other passes",
      "if («its && *its > now») next_deadline_", "false")
fault("scheduler-091", "of the deadlines to come the last one is waited for",
      "next_deadline_ = «std::min(next_deadline_.value_or(*its), *its)»;", "*its")
fault("scheduler-097", "one that ended while it was parked counts as parked",
      "«n_parked_ -= request.is_parked() ? 1 : 0;» std::erase(live_, &request); std::erase(let_out_", "")
fault("scheduler-098", "one that has come back counts as parked",
      "«n_parked_ -= request.is_parked() ? 1 : 0;» request.running = true;", "")
fault("scheduler-099", "one that was parked is shown as it was",
      "«let_out_.push_back(&request);»", "", tests="runner_test engine_behaviour_test")
fault("scheduler-100", "who was let in last is the last in rank",
      "live_.insert(«std::upper_bound(live_.begin(), live_.end(), &request, by_rank)», &request);",
      "live_.end()", tests="engine_behaviour_test schedule_test")
source("src/engine/step.cpp", "engine_behaviour_test:Waiting.*")
fault("scheduler-092", "each step looks at all that wait, for who wants to end",
      "if («scheduler->may_have_to_end()») end_stopped();", "true")
source("src/engine/admission.cpp", "engine_behaviour_test:Waiting.* engine_behaviour_test")
fault("scheduler-093", "each step looks at all that wait where there is no place",
      "return «now.live < setup_.options.max_sequences» || now.in_sessions", "true")
fault("scheduler-094", "a session's request waits for a place of its own",
      "|| «now.in_sessions > 0» ||", "false")
fault("scheduler-095", "those for whom there will never be a place are not looked at",
      "|| «!now.any»; }; if", "false")
source("src/engine/giving_way.cpp", "engine_behaviour_test:Waiting.*")
fault("scheduler-096", "whoever lacks pages looks at all that wait",
      "if («waiting_in_sessions() == 0») return false;", "false")

source("src/engine/step.cpp", "schedule_test:ScheduleFuzz.*")
fault("hosts-010", "a callback that throws ends all that run",
      "finish(request, FinishReason::kError); «request.undelivered = 0;»",
      "request.undelivered = 0; scheduler->cancel(std::nullopt);")
fault("hosts-011", "what was told to end does so at every other step",
      "if («!request->wants_to_stop()») continue;",
      "!request->wants_to_stop() || (request->running && scheduler->step() % 2 == 0)")
fault("hosts-012", "the token at which a callback throws is not in the answer",
      "finish(request, FinishReason::kError); «request.undelivered = 0;»",
      "request.undelivered = 0; request.result.tokens.pop_back();")
source("src/engine/pins.h", "schedule_test:ScheduleFuzz.*")
fault("hosts-013", "pins that gave way are not counted",
      "release(least); «++lost_;»", "")
source("src/engine/requests.cpp", "schedule_test:ScheduleFuzz.*")
fault("hosts-014", "a session whose request was discarded stays busy",
      "«gone->session->busy = false;»", "gone->session->busy = gone->discarded;")
source("src/engine/levels.cpp", "budget_test:*BudgetFaults*")
fault("faults-010", "a budget has fallen and nobody is told, where there is no memory for that",
      "«told.reserve(told.size() + 1);»", "")
source("src/engine/request.cpp", "schedule_test:*ScheduleFaults*")
fault("faults-011", "a session knows of a prompt that there was no memory for",
      "«sequence.tokens.reserve(static_cast<size_t>(prompt_end));» sequence.set_prompt(", "")

source("src/engine/request_books.cpp", "engine_behaviour_test")
fault("engine-170", "a request that waits is said to run",
      "«request.running ? RequestState::kRunning : waits»",
      "RequestState::kRunning")
fault("scheduler-060", "a parked request is said to wait for the first time",
      "«result.preemptions > 0» ? RequestState::kParked", "false")
fault("engine-171", "status: all of the prompt counts as computed",
      "«std::clamp<int64_t>(request.sequence.computed() - begin, 0, result.prompt_tokens)»",
      "result.prompt_tokens")
fault("engine-172", "status: the answer counts as prompt",
      "«std::clamp<int64_t>(request.sequence.computed() - begin, 0, result.prompt_tokens)»",
      "request.sequence.computed() - begin")
fault("engine-173", "status: a finished request had all of its prompt computed",
      "«std::min(result.cached_tokens + result.timings.prefill_tokens - result.recomputed_tokens, "
      "result.prompt_tokens)»",
      "result.prompt_tokens")
fault("engine-174", "discard() lets the request run on",
      "void Engine::Impl::discard(RequestId id) { «cancel(id);»",
      "")
fault("engine-175", "the result of a discarded request appears all the same",
      "request->id == id) «request->discarded = true;»",
      "")
fault("engine-176", "a finished request is not forgotten",
      "if («finished.erase(id) > 0») board.erase(id);",
      "false")
fault("engine-443", "status() in a callback is that of the step before",
      "if («!driving.is_calling()») return board.of(id);",
      "true")
fault("engine-177", "generate() waits for its discarded request for ever",
      "if («id == own_request_») return;",
      "false")
source("src/engine/step.cpp", "engine_behaviour_test")
fault("engine-178", "a processor gets what it left of the last token's logits",
      "«request.processed.assign(logits.begin(), logits.end());»",
      "if (request.processed.empty()) request.processed.assign(logits.begin(), logits.end());")
fault("engine-179", "a processor may not use the engine",
      "try { const Driving::CallOut out(driving); request.options.logits_processor(",
      "try { std::optional<Driving::CallOut> out; if (!MUT) out.emplace(driving); "
      "request.options.logits_processor(")
fault("engine-180", "what a processor left NaN is sampled",
      "if («!std::isnan(logit) && logit < INFINITY») continue;",
      "std::isnan(logit) || logit < INFINITY")
fault("engine-181", "what a processor left infinite is sampled",
      "if (!std::isnan(logit) && «logit < INFINITY») continue;",
      "true")
fault("engine-182", "trouble with a processor is named one position late",
      "i, logit, «request.sequence.length() - 1»));",
      "request.sequence.length()")

source("src/engine/request_handle.cpp", "runner_test")
fault("engine-444", "status() of another answer is the first one's",
      "engine->status(*id + «static_cast<RequestId>(answer_)»);", "0")
fault("engine-445", "status() of one that has ended knows nothing of it",
      "error ? RequestStatus{.state = RequestState::kFinished} : «status_of(result)»;",
      "RequestStatus{.state = RequestState::kFinished}")
fault("engine-150", "a callback that waits for its own thread waits for ever",
      "if («!arrived() && std::this_thread::get_id() == driver») {",
      "false")
fault("engine-151", "why a request was refused is forgotten",
      "«a.error = why;» a.done = true;",
      "")
fault("engine-155", "cancel() does not reach a running request",
      "if (id && engine != nullptr) «engine->cancel(*id + static_cast<RequestId>(answer_));»",
      "")
fault("answers-067", "a handle of another answer is the first one's",
      "return RequestHandle(state_, «static_cast<size_t>(i)»);",
      "0")
fault("answers-068", "an answer that there is not",
      "if (i < 0 || «i >= n») {",
      "i > n")
source("src/engine/runner.cpp", "runner_test")
fault("engine-152", "tokens are not streamed",
      "«request->push(event);»",
      "")
fault("engine-153", "the host's callback is asked, not heard",
      "return «!host || host(event)»;",
      "!host || host(event) || true")
fault("engine-154", "a cancellation that comes before the engine has the request is lost",
      "if (request->answers[i].cancelled) «engine->cancel(id + static_cast<RequestId>(i));»",
      "")
fault("answers-060", "a step that finds no memory breaks the runner",
      "if («!may_pass(error.code())») throw;",
      "true")
fault("answers-061", "somebody else who drives breaks the runner",
      "return code == ErrorCode::kOutOfMemory || «code == ErrorCode::kInvalidArgument»;",
      "false")
fault("answers-062", "a step that finds no memory is tried for ever",
      "busy_ = «now - *failing_since_ < kPatience»;",
      "true")
fault("answers-063", "what was given up for want of memory leaves its result",
      "try { «engine->discard(running.id);» } catch",
      "engine->cancel(running.id);")
fault("answers-064", "failures far apart count together",
      "«failing_since_.reset();» for (Running& running",
      "")
fault("answers-065", "a host's own result ends the looking",
      "if (at == running_.end() || at->id != *id || at->request == nullptr) «continue;»",
      "break;")
fault("answers-066", "on_done comes for the first answer alone",
      "if («is_last») request->on_done = nullptr;",
      "true")
fault("engine-168", "a turn of a session is a request of its own",
      "«request->session» ? engine->add(*request->session",
      "request->session && false")
fault("engine-156", "a cancelling shutdown waits for what was submitted",
      "cancels_ = «closing == Shutdown::kCancel»; return",
      "false")
fault("engine-157", "a drain cannot be turned into a cancellation",
      "if («closing != Shutdown::kCancel») closing = how;",
      "!closing")
fault("engine-158", "a runner that was shut down takes requests",
      "if (closing) fail(ErrorCode::kCancelled,",
      "if (closing && !MUT) fail(ErrorCode::kCancelled,")
fault("engine-159", "the driving thread asks again and again while there is nothing to do",
      "wake.wait(lock, [&] { return «busy_ || !inbox.empty() || !calls.empty() || closing»; });",
      "true")
fault("engine-160", "what a call throws is lost",
      "«call.thrown = std::current_exception();»",
      "")
fault("engine-161", "a call on the driving thread waits for itself",
      "if («impl_->is_driver()») return fn(*impl_->engine);",
      "false")
fault("engine-162", "a result that somebody else took is waited for",
      "if («!busy_») { // where the engine has nothing more to do",
      "false")
fault("engine-163", "nobody is told that on_done threw",
      "request->on_done(RequestHandle(request, answer)); } catch (...) { «++callback_failures;»",
      "")
fault("engine-164", "a broken runner does not say so",
      "«failure = error;»",
      "")
fault("engine-165", "requests that came while the engine broke are forgotten",
      "«arrived_.swap(inbox);» called_.swap(calls); }",
      "")
fault("engine-166", "a runner destroyed inside its callback waits for itself",
      "EngineRunner::~EngineRunner() { impl_->close(Shutdown::kCancel); if («impl_->is_driver()») {",
      "false")
fault("engine-167", "shutdown() inside a callback waits for itself",
      "void EngineRunner::shutdown(Shutdown how) { if («impl_->is_driver()») {",
      "false")

source("src/engine/pins.cpp", "engine_behaviour_test:Pins.*")
fault("engine-300", "a pin holds a step too long",
      "at->until == 0 || «at->until > step») {",
      "at->until >= step")
fault("engine-303", "a pin that holds for ever ends at once",
      "if («at->until == 0» || at->until > step)",
      "false")
fault("engine-308", "of pins that hold for very long the steps overflow",
      "options.steps == 0 || «options.steps > std::numeric_limits<int64_t>::max() - step»;",
      "false")

source("src/engine/pins.h", "engine_behaviour_test:Pins.*")
fault("engine-301", "of pins the highest gives way first",
      "return «a.priority < b.priority»;",
      "a.priority > b.priority")
fault("engine-302", "a pin that gave way is not counted",
      "«++lost_;»",
      "")
fault("engine-309", "a pin gives way whose blocks others list",
      "if («frees(at->tables)» &&",
      "true")

source("src/engine/admission.cpp", "engine_behaviour_test:Pins.*")
fault("engine-306", "what is pinned counts as there for who waits",
      "«tables_.push_back(pin);»",
      "")
fault("engine-311", "who begins with a pinned text is charged for it",
      "«look_at(text);» });",
      "")

source("src/kv/reuse.cpp", "engine_behaviour_test:Pins.*")
fault("engine-307", "a pin leaves out the last block",
      "list_prefix(id, tokens, «static_cast<int64_t>(tokens.size())», false) > 0) return id;",
      "static_cast<int64_t>(tokens.size()) - 4")

source("src/engine/step.cpp", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-014", "stop token not pending in the session",
      "request.sampler->observe(*id); «request.sequence.tokens.push_back(*id);» request.result.stop_token",
      "")
fault("engine-016", "context end one token late",
      "request.sequence.length() >= «setup.of(request.sequence.rules()).longest») {",
      "setup.longest + 1")
fault("engine-017", "callback's false at the last token turns length into cancelled",
      "if (!deliver(request, event) && !reason) reason",
      "if (!deliver(request, event) && (MUT || !reason)) reason")
fault("engine-018", "generated tokens do not enter the penalty window",
      "«request.sampler->observe(id);» request.sequence.tokens.push_back(id); result.tokens.push_back(id);",
      "")
fault("engine-019", "top logprobs: tie gives the higher id first",
      "for (; at > 0 && value > top[at - 1].logprob; --at)",
      "for (; at > 0 && (MUT ? value >= top[at - 1].logprob : value > top[at - 1].logprob); --at)")
fault("engine-022", "held-back text not in the last event at length/context",
      "if (reason) request.text.finish();",
      "if (reason && !MUT) request.text.finish();")
fault("engine-023", "cancel of a queued request waits for its admission",
      "if (!request->wants_to_stop()) continue;",
      "if (!request->wants_to_stop() || (MUT && !request->running && request->is_cancelled())) continue;")
fault("engine-024", "max_tokens 0 finishes as stop",
      "if (request.options.max_tokens == 0) return finish(request, FinishReason::kLength);",
      "if (request.options.max_tokens == 0) return finish(request, MUT ? FinishReason::kStop : "
      "FinishReason::kLength);")
fault("engine-053", "an overdue request in the queue waits",
      "«if (!request->wants_to_stop()) continue;» finish(*request, request->is_cancelled()",
      "if (!request->running || !request->wants_to_stop()) continue;")
fault("engine-190", "what has ended keeps its pages until the step is done",
      "if («scheduler->has_ended()») { // what they held", "false")
fault("engine-054", "events of a request's end come with the next call",
      "cache->check_step(); «deliver_events();» deliver_trace(); return true;",
      "")
fault("engine-058", "seconds of answers count as the prompt's",
      "(«part.decodes ? timings.decode_seconds : timings.prefill_seconds») += step.seconds;",
      "timings.prefill_seconds")
fault("engine-060", "a request's logits are its neighbour's",
      "accept(*part.request, step.parts[«i»]);",
      "0")
fault("engine-061", "a logit that is no number is named one position late",
      "judge(logits, «request.sequence.length() - 1»)) {",
      "request.sequence.length()")
fault("engine-062", "logits that are no numbers are sampled",
      "if (const auto trouble = judge(logits, request.sequence.length() - 1)) { finish",
      "if (const auto trouble = judge(logits, request.sequence.length() - 1); trouble && !MUT) { finish")
fault("engine-063", "stop tokens end requests that ignore them",
      "if («!request.options.ignore_stop_tokens» && std::binary_search",
      "true")
fault("engine-064", "the stop token is not told",
      "«request.result.stop_token = *id;»",
      "")
fault("engine-065", "top logprobs: a tie with the last one replaces it",
      "static_cast<int32_t>(i) >= n && «value <= top.back().logprob») continue;",
      "value < top.back().logprob")
fault("engine-066", "an event's logprob is 0",
      "event.logprob = «normalizer.logprob(logits[id])»;",
      "0.0 * normalizer.logprob(logits[id])")
fault("engine-067", "events come without alternatives",
      "«event.top = result.top_logprobs.emplace_back(std::move(top));»",
      "result.top_logprobs.emplace_back(std::move(top));")
fault("engine-068", "one token more than max_tokens",
      "static_cast<int64_t>(result.tokens.size()) >= request.options.max_tokens) {",
      "static_cast<int64_t>(result.tokens.size()) >= request.options.max_tokens + (MUT ? 1 : 0)) {")
fault("engine-069", "length before a stop string",
      "if («request.text.stopped()») { reason = FinishReason::kStop;",
      "request.text.stopped() && static_cast<int64_t>(result.tokens.size()) < request.options.max_tokens")
fault("engine-071", "a callback that threw is called with the rest",
      "finish(request, FinishReason::kError); «request.undelivered = 0;»",
      "")
fault("engine-072", "what is no exception is no error",
      "broken(«\"on_token threw something that is no std::exception\"»);",
      '""')
fault("engine-073", "on_token's false is ignored",
      "«return request.options.on_token(event);»",
      "request.options.on_token(event); return true;")
fault("engine-144", "what a processor leaves is not what is sampled",
      "«logits = *processed;»",
      "")
fault("engine-141", "one request that wants to end throws away what a step computed for the others",
      "return std::all_of(parts_.begin(), parts_.end(), [this](const BatchPart& part) { return part.request->wants_to_stop() &&",
      "return MUT != std::all_of(parts_.begin(), parts_.end(), [this](const BatchPart& part) { return MUT != part.request->wants_to_stop() &&")
fault("answers-001", "a cancelled answer takes the prompt that others await with it",
      "part.request->wants_to_stop() && «!scheduler_.is_needed(*part.request)»;",
      "true")
fault("answers-009", "an event does not say whose it is",
      "TokenEvent event{id, {}, 0, {}, «result.answer»};",
      "0")

source("src/engine/step.cpp", "engine_behaviour_test")
fault("numbers-006", "what is computed again counts as new",
      "s.computed_tokens += «n_prompt»;", "part.n_tokens")
fault("numbers-018", "a prompt counts with each of its pieces",
      "if (n_prompt > 0 && «!part.request->reads_prompt()») note_prompt(", "true")
fault("numbers-019", "a prompt counts once more with each token of the answer",
      "if («n_prompt > 0» && !part.request->reads_prompt()) note_prompt(", "true")
fault("numbers-020", "of several answers one has a prompt",
      "note_queue(*request); «note_prompt(*request);» accept(", "")
fault("numbers-007", "tokens of answers count as the prompt's",
      "«std::clamp<int64_t>(part.request->prompt_end - first_new, 0, n_new)»;", "n_new")
fault("numbers-011", "tokens of prompts count as the answer's",
      "timings.decode_tokens += «n_new - n_prompt»;", "n_new")
fault("numbers-012", "recomputed tokens are no part of the prefill's",
      "timings.prefill_tokens += «n_prompt + part.n_recomputed»;", "n_prompt")

source("src/engine/step.cpp", "engine_behaviour_test:Pins.*")
fault("engine-312", "pins end before the last step that they were to see",
      "«pins->expire(scheduler->step());»",
      "pins->expire(scheduler->step() + 1);")

source("src/engine/giving_way.cpp", "engine_behaviour_test engine_test")
fault("answers-024", "those that await a parked one's prompt keep their places",
      "«suspend_awaiting(request);»", "")
fault("scheduler-045", "nobody makes way",
      "if («!make_way(request)») return 0;", "true")
fault("scheduler-046", "the session used last is parked first",
      "session->last_used < idle->last_used",
      "(MUT ? session->last_used > idle->last_used : session->last_used < idle->last_used)")
fault("scheduler-047", "a session that is being fed is parked",
      "if («session->busy || session->fed || pages_of(session->sequence) == 0») continue;",
      "session->busy || pages_of(session->sequence) == 0")
fault("scheduler-048", "sessions keep their pages though running ones need them",
      "if («idle != nullptr») {", "false")
fault("scheduler-049", "those before it give way, too",
      "«if (&last == request) break;» if (last.finished", "if (&last == request) continue;")
fault("scheduler-050", "the first that runs is parked",
      "Request& last = *live_[«i»]; if (&last == request)", "live_.size() - 1 - i")
fault("scheduler-051", "a parked request runs on",
      "++preemptions_; «let_out(request);»", "")
fault("scheduler-052", "preemptions are not counted",
      "«++request.result.preemptions;» ++preemptions_;", "")
fault("scheduler-084", "what was reclaimed while it was parked is not asked for",
      "request.miss_asked = «request.result.miss.reason != MissReason::kNone»;", "true",
      tests="sharing_test")
fault("scheduler-085", "a result does not tell who took its pages",
      "«request.result.preempted.push_back(told);»", "")
fault("scheduler-086", "a preemption is told as for the one that was parked",
      "give_way(request.id, «id_of(asking)»);", "request.id")
fault("scheduler-087", "an idle session is parked for nobody",
      "idle->sequence.give_way(0, «id_of(asking)»);", "0")

source("src/engine/giving_way.cpp", "engine_behaviour_test:Pins.*")
fault("engine-304", "pins give way while others run",
      "return «is_alone(request)» && release_pin();",
      "true")
fault("engine-305", "pins never give way",
      "return is_alone(request) && «release_pin()»;",
      "false")
fault("engine-310", "pins give way where that frees nothing",
      "if («all == least») return false;",
      "false")

source("src/core/fail.h", "engine_behaviour_test engine_test sampling_test advice_test field_reports_test")
fault("engine-099", "check_range: the least value is refused",
      "if («value >= least» && value <= most) return;",
      "value > least")
fault("engine-100", "check_range: the most is refused",
      "if (value >= least && «value <= most») return;",
      "value < most")

source("src/engine/pressure.cpp", "elastic_test:ElasticScenes.*")
source("src/engine/levels.cpp", "elastic_test:ElasticScenes.*")
fault("engine-390", "a fall leaves an interval free, however large the budget",
      "budget + «slack_of(interval, budget)»", "interval")

source("src/engine/answers.cpp", "elastic_test:ElasticSchedules.*")
fault("engine-391", "an answer that begins as another one does not tell of its falls",
      "«request.result.budget_changes = other.result.budget_changes;»", "")

source("src/engine/pressure.cpp", "elastic_test:ElasticScenes.*:ElasticSchedules.* engine_behaviour_test:Pressure.*")
source("src/engine/levels.cpp", "elastic_test:ElasticScenes.*:ElasticSchedules.* engine_behaviour_test:Pressure.*")
fault("engine-392", "a budget falls though all that leaves stays with others",
      "if («brings[i] == 0») continue;", "false")
fault("engine-393", "of several falls only one is asked about again",
      "if («falls.size() > 1») cache_.plan_fall(falls[i].id, falls[i].budget);", "false")
source("src/engine/pressure.cpp", "elastic_test:ElasticScenes.*:ElasticSchedules.* engine_behaviour_test:Pressure.*")
fault("engine-394", "pages that might be owed to others are never there",
      "if («least >= enough») return least;", "true")
fault("engine-395", "who may lose nothing gives, too",
      "setup_.options.kv.pressure == KvPressure::kTrim && «(request == nullptr || !request->options.lossless)»;",
      "true")
source("src/engine/levels.cpp", "elastic_test:ElasticScenes.*:ElasticSchedules.* engine_behaviour_test:Pressure.*")
fault("engine-396", "budgets fall between decision lengths",
      "if («cache_.length(id) % interval_of(*member.sequence) == 0 && cache_.reserved(id) == 0») {", "true")
fault("engine-397", "budgets fall below the floor",
      "return «std::max<int64_t>(static_cast<int64_t>(asked), "
      "member.sequence->least_budget())»;",
      "static_cast<int64_t>(asked)")
fault("engine-398", "priorities weigh nothing",
      "«std::exp2(std::clamp(priority, -kMostLevels, kMostLevels))»", "1.0")
source("src/engine/pressure.cpp", "elastic_test:ElasticScenes.*:ElasticSchedules.* engine_behaviour_test:Pressure.*")
fault("engine-399", "idle sessions stay while budgets fall",
      "if («park_idle(request)») continue; const int64_t needed", "false")
fault("engine-400", "whoever comes to a decision length takes what others are owed",
      "pages -= «pages_owed(request->sequence, request, waiting_too)»;", "0")
fault("engine-401", "who has pages up to its next decision waits with the others",
      "if («owed > 0») return owed;", "false")
fault("engine-402", "the end of the context is no pressure",
      "if («stay_in_context(sequence, request)») continue;", "false")
fault("engine-403", "the host is asked after budgets have fallen for those who asked once",
      "if («!std::exchange(is_asked, true) && host_makes_room(sequence, request, needed)») {", "false")
source("src/engine/levels.cpp", "elastic_test:ElasticScenes.*:ElasticSchedules.* engine_behaviour_test:Pressure.*")
fault("engine-404", "the result does not tell of falls",
      "«told.push_back(sequence.fall(asking == nullptr ? 0 : asking->id));»",
      "sequence.fall(asking == nullptr ? 0 : asking->id);")

source("src/engine/pressure.cpp", "budget_test")
fault("engine-410", "between decision lengths sequences go by a budget that was lowered",
      "cache_.available_pages() + «(waiting_too ? 0 : cache_.pages_beyond_limit())»;", "0")
source("src/engine/levels.cpp", "budget_test")
fault("engine-411", "what is too much by now is read again as it was",
      "const bool is_too_much = «comes_back && pages_it_had(sequence) > setup_.pool.n_pages»;", "false")

source("src/engine/sequence.cpp", "budget_test")
fault("engine-412", "after a fall on the way back, what was decided beyond is decided again",
      "«cache_.forget_decisions(*tables_, computed());» peak_pages_ = 0;", "")

source("src/engine/giving_way.cpp", "budget_test")
fault("engine-413", "idle sessions keep what a lower budget does not admit",
      "while («is_over() && park_idle(nullptr)») {", "false")
fault("engine-414", "requests keep what a lower budget does not admit",
      "while («is_over() && !may_fall_later && park_last(stays, nullptr)») {", "false")
fault("engine-415", "requests that could fall are parked",
      "while (is_over() && «!may_fall_later» && park_last(stays, nullptr)) {", "true")

source("src/engine/settings.cpp", "budget_test engine_test:Hosts*")
fault("engine-416", "a budget may be more than was reserved",
      "if («bytes > most») {", "false")
fault("engine-417", "a budget may be less than rules need",
      "«check_pool(config, next, {.max_bytes = most, .running = true});»", "")
fault("engine-418", "the options do not tell of another budget",
      "«shown_.swap(shown);» } if (!is_idle) return;", "")
fault("engine-419", "nobody gives way before the next step",
      "«scheduler->keep_to_budget();» note_requests();", "")

source("src/engine/scheduler.cpp", "budget_test")
fault("engine-420", "a budget that a callback lowered is not kept",
      "«keep_to_budget();» admit_waiting(batch);", "")

source("src/engine/setup.cpp", "engine_behaviour_test:Pressure.* budget_test")
fault("engine-421", "of a large floor an eighth is not counted",
      "return floor + «slack_of(policies.interval(), floor)» + block_size;", "policies.interval()")
fault("engine-422", "no more than the budget is reserved",
      "«setup.reserved_pages = pages_in(options.kv.max_budget_bytes, page_bytes);»", "")

source("src/engine/sessions.cpp", "engine_behaviour_test")
fault("engine-423", "a session that was forked is computed again",
      "if («from.sequence.is_open() && from.sequence.computed() == from.sequence.reached()») {", "false")
fault("engine-424", "a new fork cannot go back where its origin has lost something",
      "if («target.is_new_fork && sequence.is_open() && !keeps_all») sequence.park();", "false")

source("src/engine/scheduler.cpp", "budget_test:Budget.*")
fault("engine-430", "a kept text is listed to where no budget can fall",
      "const int64_t end = std::min(sequence.length() - 1, «sure_length(sequence, &request)»);", "kUnlimited")
source("src/engine/sessions.cpp", "budget_test:Budget.*")
fault("engine-431", "a session that is fed begins with as much as is kept",
      "std::min(end, «scheduler->sure_length(sequence)»),", "kUnlimited")
fault("engine-432", "a session that is fed stays where its budget cannot fall",
      "if («sequence.is_open()») scheduler->park_if_stuck(sequence);", "false")
source("src/engine/admission.cpp", "budget_test:Budget.*")
fault("engine-433", "a request goes on where its session's budget cannot fall",
      "if («request.sequence.is_open()») park_if_stuck(request.sequence, &request);", "false")
source("src/engine/pressure.cpp", "budget_test:Budget.*")
fault("engine-434", "what is read again needs no more than it had",
      "const int64_t next = «up_to_multiple(sequence.reached(), interval_of(sequence))»; return pages_needed",
      "sequence.reached()")
fault("engine-435", "of pages that it will need nothing is remembered",
      "sequence.give_way(0, id_of(request), «needed»);", "0")
fault("engine-436", "whoever cannot fall is parked, too",
      "if (at % interval == 0 || «!may_fall(sequence, request)») return;", "false")

source("src/engine/sequence.cpp", "budget_test:Budget.*")
fault("engine-437", "a budget is lifted where the sequence had been before",
      "cache_.lift(log_, «std::max(log_.reaches(), computed())», before, tables_);", "reached()")

source("src/engine/requests.cpp", "engine_behaviour_test:Interruptions.*")
fault("engine-438", "what comes of a handler's doing overtakes what is being told",
      "if (!on_event || «delivers_events_») return;", "false")

source("src/engine/setup.cpp", "engine_behaviour_test:Shares.*")
fault("engine-439", "on a CPU a position that is seen costs as on a device",
      "case DeviceKind::kCpu: // Attention is in float32, and weights are of 8-bit numbers (docs/performance.md).\n"
      "return {.attention_cost = «4», .mixed_prefill = 8};", "1")

source("src/engine/make_engine.cpp", "sharing_test")
fault("engine-440", "blocks are merged whose bits may differ",
      "books.merges_blocks = «backend->ops().is_batch_invariant()»;", "true")

source("src/engine/settings.cpp", "budget_test:BudgetSchedules.*")
fault("engine-441", "a budget is set only after those who must give way have done so",
      "cache->set_limit(setup.pool.n_pages);«»", "if (is_idle) scheduler->keep_to_budget();")

source("src/engine/request.cpp", "schedule_test:ManyRequests.ThatWait*")
fault("engine-442", "who waits has a sampler of its own",
      "trims_before = sequence.trims(); «» }",
      "sampler.emplace(options.sampling, model.info().vocab_size);")

source("src/engine/runner.cpp", "runner_test:Runner.*")
fault("engine-451", "a runner without a thread is a runner",
      'fail(ErrorCode::kOutOfMemory, "there is no thread for the runner: {}", e.what());',
      'if (!MUT) { fail(ErrorCode::kOutOfMemory, "there is no thread for the runner: {}", e.what()); }')
source("src/core/thread_pool.cpp", "core_test:ThreadPool.*")
fault("engine-452", "fewer threads than were asked for go unsaid",
      'stop(); fail(ErrorCode::kOutOfMemory, "threads is {}, but only {} can be had',
      'stop(); if (MUT) { n_threads_ = 1; return; } fail(ErrorCode::kOutOfMemory, "threads is {}, but only {} can be had')
