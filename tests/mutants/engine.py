# Faults of the area "engine": see faults.py.

source("src/engine/engine_impl.cpp", "engine_test sampling_test stats_test field_reports_test advice_test")
fault("engine-001", "an event callback that threw is called again",
      "«if (hook_failures_ > 0) return;» // it threw once",
      "")
fault("engine-002", "nobody is told that the event callback threw",
      "on_event(event); } catch (...) { «++hook_failures_;»",
      "")
fault("engine-003", "admission: exact fit refused (> to >=)",
      "if (others && claimed > setup.n_pages) return false;",
      "if (others && (MUT ? claimed >= setup.n_pages : claimed > setup.n_pages)) return false;")
fault("engine-004", "admission ignores pages of idle sessions",
      "if (!session->busy) claimed += session->claimed_pages;",
      "if (!MUT && !session->busy) claimed += session->claimed_pages;")
fault("engine-005", "admission does not count running sequences",
      "if (other->session == nullptr) ++live;",
      "if (!MUT && other->session == nullptr) ++live;")
fault("engine-006", "prompt that fills the context exactly refused",
      "if (total > context) {",
      "if (MUT ? total >= context : total > context) {")
fault("engine-007", "request claims its prompt only",
      "pages_for(session, std::min<int64_t>(context, «total + options.max_tokens»));",
      "total")
fault("engine-008", "deadline does not stop a running forward pass",
      "return request->cancelled || overdue(*request);",
      "return request->cancelled || (!MUT && overdue(*request));")
fault("engine-009", "admission: later requests overtake a waiting one",
      "!try_admit(*request)) break;",
      "!try_admit(*request) && !MUT) break;")
fault("engine-010", "retire(): session's claimed pages not updated",
      "«session.claimed_pages = pages_for(&session, cache->length(session.sequence));» session.busy",
      "")
fault("engine-011", "prefill before decode in a step",
      "request->decoding() != decoding) continue;",
      "(request->decoding() != decoding) != MUT) continue;")
fault("engine-012", "forward that throws is not rolled back",
      "} catch (...) { roll_back(); throw;",
      "} catch (...) { if (!MUT) roll_back(); throw;")
fault("engine-013", "prefill_tokens counts steps",
      "timings.decode_tokens : timings.prefill_tokens) += request->planned;",
      "timings.decode_tokens : timings.prefill_tokens) += MUT ? 1 : request->planned;")
fault("engine-014", "stop token not pending in the session",
      "request.sampler.observe(id); «request.input.push_back(id);» result.stop_token = id;",
      "")
fault("engine-015", "held-back text is not delivered at the end",
      "const size_t n = «std::exchange(request.undelivered, 0)»;",
      "static_cast<size_t>(request.undelivered = 0)")
fault("engine-016", "context end one token late",
      "static_cast<int64_t>(request.input.size()) >= setup.options.context) {",
      "static_cast<int64_t>(request.input.size()) >= setup.options.context + (MUT ? 1 : 0)) {")
fault("engine-017", "callback's false at the last token turns length into cancelled",
      "if (!deliver(request, event) && !reason) reason",
      "if (!deliver(request, event) && (MUT || !reason)) reason")
fault("engine-018", "generated tokens do not enter the penalty window",
      "«request.sampler.observe(id);» request.input.push_back(id); result.tokens.push_back(id);",
      "")
fault("engine-019", "top logprobs: tie gives the higher id first",
      "for (; at > 0 && value > top[at - 1].logprob; --at)",
      "for (; at > 0 && (MUT ? value >= top[at - 1].logprob : value > top[at - 1].logprob); --at)")
fault("engine-020", "cancel() does not reach feed()/forward()",
      "if (!id) cancel_feed_ = true;",
      "if (!id && !MUT) cancel_feed_ = true;")
fault("engine-021", "the prompt's end is set to what is fed of it",
      "cache->set_prompt(*request.sequence, «static_cast<int64_t>(request.prompt_end)»);",
      "static_cast<int64_t>(request.fed)")
fault("engine-022", "held-back text not in the last event at length/context",
      "if (reason) request.text.finish();",
      "if (reason && !MUT) request.text.finish();")
fault("engine-023", "cancel of a queued request waits for its admission",
      "for (const auto& request : requests) { if (request->cancelled) {",
      "for (const auto& request : requests) { if (request->cancelled && (!MUT || request->admitted)) {")
fault("engine-024", "max_tokens 0 finishes as stop",
      "if (request.options.max_tokens == 0) return finish(request, FinishReason::kLength);",
      "if (request.options.max_tokens == 0) return finish(request, MUT ? FinishReason::kStop : "
      "FinishReason::kLength);")
fault("engine-025", "kv_full reported as context",
      "finish(request, FinishReason::kKvFull);",
      "finish(request, MUT ? FinishReason::kContext : FinishReason::kKvFull);")

source("src/engine/engine_sequences.cpp", "engine_test sampling_test stats_test field_reports_test advice_test")
fault("engine-026", "a cancelled feed cancels all later ones",
      "cancel_feed_ = false;",
      "if (!MUT) cancel_feed_ = false;")
fault("engine-027", "feed that throws: pending tokens fed twice",
      "} catch (...) { settle();",
      "} catch (...) { if (!MUT) settle();")
fault("engine-028", "truncate keeps pending tokens",
      "«target.tokens.resize(static_cast<size_t>(length));»",
      "")
fault("engine-029", "total.attention_seconds forgotten",
      "stats.total.attention_seconds += layer.attention_seconds;",
      "if (!MUT) stats.total.attention_seconds += layer.attention_seconds;")
fault("engine-030", "cancelled feed not rolled back",
      "if (!completed) { cache->rollback(sequence);",
      "if (!completed) { if (!MUT) cache->rollback(sequence);")
