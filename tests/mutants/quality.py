# Faults of the area "quality": see faults.py.

source("src/diagnose/quality.cpp", "quality_test")
fault("quality-001", "kl_max_position: last instead of first of equals",
      "if (at.kl > sum.kl_max) {",
      "if (MUT ? at.kl >= sum.kl_max : at.kl > sum.kl_max) {")
fault("quality-002", "kept.max is what is resident at the end, not the peak",
      "kept_[i].max = «std::max(kept_[i].max, now[i].tokens_peak)»;",
      "now[i].tokens_resident")
fault("quality-003", "kept.mean counts what earlier runs read",
      "now[i].tokens_read - read_before_[i]);",
      "now[i].tokens_read - (MUT ? 0 : read_before_[i]));")
fault("quality-004", "recall counts facts that the baseline did not know",
      "const bool counts = results.empty() || results.front().facts[i].recalled;",
      "const bool counts = MUT || results.empty() || results.front().facts[i].recalled;")
fault("quality-005", "answer_nll is a sum, not a mean",
      "static_cast<double>(answer_tokens[fact]);",
      "static_cast<double>(MUT ? 1 : answer_tokens[fact]);")
fault("quality-006", "a cancelled compare() cancels all later ones",
      "impl.cancelled = false; const auto n = static_cast<int64_t>(tokens.size());",
      "if (!MUT) impl.cancelled = false; const auto n = static_cast<int64_t>(tokens.size());")
fault("quality-007", "score of the previous position reported",
      "std::span<const PositionQuality>(scores).subspan( static_cast<size_t>(position - begin - 1)",
      "std::span<const PositionQuality>(scores).subspan( static_cast<size_t>(position - begin - "
      "(MUT && position > begin + 1 ? 2 : 1))")
fault("quality-008", "meter's engines keep a batch larger than the chunk",
      "engine.batch_size = std::min(engine.batch_size, options.chunk);",
      "if (!MUT) engine.batch_size = std::min(engine.batch_size, options.chunk);")
fault("quality-009", "only the last token of an answer decides recalled",
      "if (best_token(row) != static_cast<size_t>(next)) recall.recalled = false;",
      "recall.recalled = MUT ? best_token(row) == static_cast<size_t>(next) : recall.recalled && "
      "best_token(row) == static_cast<size_t>(next);")
fault("quality-014", "kept.mean is not divided by what was fed",
      "fed_ += «static_cast<int64_t>(tokens.size())»;",
      "1")
fault("quality-015", "kept.mean is the layers' sum",
      "out.kept.mean += layer.mean / «static_cast<double>(kept_.size())»;",
      "1.0")
fault("quality-016", "kept.max is the last layer's",
      "out.kept.max = «std::max(out.kept.max, layer.max)»;",
      "layer.max")
fault("quality-017", "perplexity is of the divergence",
      "sum.perplexity = std::exp(«sum.nll»);",
      "sum.kl_mean")
fault("quality-018", "a text that fills the context is refused",
      "if («tokens <= context») continue;",
      "tokens < context")
fault("quality-019", "a text beyond the context is fed",
      "if («tokens <= context») continue;",
      "true")
fault("quality-020", "chunk 0",
      "if («options.chunk < 1» || options.chunk > 65535) {",
      "options.chunk < 0")
fault("quality-021", "chunk: one more",
      "if (options.chunk < 1 || options.chunk > «65535») {",
      "65536")
fault("quality-022", "positions below 0",
      "if («options.positions < 0») {",
      "false")
fault("quality-023", "a budget that fits exactly is refused",
      "if («needed <= has / page_bytes») continue;",
      "needed < has / page_bytes")
fault("quality-024", "a budget too small is found out later",
      "if (options.positions > 0) «impl_->check_room(options.positions);»",
      "")
fault("quality-025", "a text too long for the budget is fed",
      "«check_room(tokens);» }",
      "")
fault("quality-026", "contenders have the baseline's policy object",
      "«engine.kv.custom_policy = nullptr;»",
      "")
fault("quality-027", "two tokens are too few",
      "if («n < 2») {",
      "n < 3")
fault("quality-028", "all of the text may not be prompt",
      "if (options.prompt_tokens < 0 || «options.prompt_tokens > n») {",
      "options.prompt_tokens >= n")
fault("quality-029", "prompt_tokens below 0",
      "if («options.prompt_tokens < 0» || options.prompt_tokens > n) {",
      "false")
fault("quality-030", "compare: the prompt's end is not told",
      "run.feed(tokens.subspan(begin, length), «prompt_tokens»,",
      "0")
fault("quality-031", "progress is that of the rule before",
      "length * static_cast<int64_t>(«rule + 1»));",
      "rule")
fault("quality-032", "a cancelled recall() cancels all later ones",
      "under_way(impl.driving, \"recall\"); «impl.cancelled = false;»",
      "")
fault("quality-033", "recall: the prompt's end is not told",
      "run.feed(std::span(planted.tokens).subspan(begin, length), «planted.prompt_tokens»,",
      "0")
fault("quality-034", "recalled counts every fact that the baseline knows",
      "if («counts && result.facts[i].recalled») ++result.recalled;",
      "counts")
fault("quality-035", "progress of a recall is its first rule's",
      "options.on_progress((«static_cast<double>(results.size())» + done) / n_rules));",
      "0.0")
fault("quality-036", "an engine beyond the last",
      "if («index >= impl_->runners.size()») {",
      "index > impl_->runners.size()")
fault("quality-037", "on_position's false is ignored",
      "impl.check_going_on(«!options.on_position || options.on_position(position, rules)»);",
      "!options.on_position || options.on_position(position, rules) || true")
fault("quality-038", "the last position is not scored",
      "position < «std::min(n, begin + length + 1)»; ++position) {",
      "std::min(n, begin + length)")

source("src/diagnose/quality_rows.cpp", "quality_test")
fault("quality-010", "KL may be negative",
      "other.kl = std::max(kl, 0.0);",
      "other.kl = MUT ? kl : std::max(kl, 0.0);")
fault("quality-011", "agreement with the text, not the baseline",
      "best_token(logits) == baseline.best;",
      "best_token(logits) == (MUT ? static_cast<size_t>(next) : baseline.best);")
fault("quality-039", "KL the other way round",
      "kl += «p[i]» * ((own[i]",
      "std::exp(softmax.logprob(logits[i]))")
fault("quality-040", "of equals the highest id is the best",
      "return static_cast<size_t>(«std::max_element(logits.begin(), logits.end())» - logits.begin());",
      "std::max_element(logits.rbegin(), logits.rend()).base() - 1")
fault("quality-041", "a contender's nll is the baseline's",
      "other.nll = «-softmax.logprob(logits[next])»;",
      "-(own[next] - baseline.normalizer)")

source("src/diagnose/quality_facts.cpp", "quality_test")
fault("quality-012", "make_facts: numbers may repeat",
      "while (!numbers.insert(number).second) number",
      "while (!numbers.insert(number).second && !MUT) number")
fault("quality-013", "recall: prompt ends before the last piece of text",
      "append(out.tokens, text.subspan(done)); out.prompt_tokens = static_cast<int64_t>(out.tokens.size());",
      "const auto before = static_cast<int64_t>(out.tokens.size()); append(out.tokens, "
      "text.subspan(done)); out.prompt_tokens = MUT ? before : "
      "static_cast<int64_t>(out.tokens.size());")
fault("quality-042", "depths begin at 0",
      "question, answer, «(i + 0.5) / n»});",
      "double(i) / n")
fault("quality-043", "numbers of five digits",
      "uint64_t number = 1000 + next_random(seed) % «9000»;",
      "10000")
fault("quality-044", "27 facts",
      "if (n < 1 || «n > kMaxFacts») {",
      "n > kMaxFacts + 1")
fault("quality-045", "depth 0 refused",
      "if (!(«fact.depth >= 0» && fact.depth <= 1)) {",
      "fact.depth > 0")
fault("quality-046", "a statement lies before the middle",
      "static_cast<size_t>(«std::llround(facts[i].depth * static_cast<double>(text.size()))»);",
      "std::floor(facts[i].depth * static_cast<double>(text.size()))")
fault("quality-047", "statements of equal depth in any order",
      "[&](size_t a, size_t b) { return «facts[a].depth < facts[b].depth»; });",
      "facts[a].depth != facts[b].depth ? facts[a].depth < facts[b].depth : a > b")
fault("quality-048", "an answer is not told from its question",
      "append(out.tokens, tokenizer.encode(facts[i].answer)); out.fact_of.resize(out.tokens.size(), «static_cast<int32_t>(i)»);",
      "0")
fault("quality-049", "the seed is always the same",
      "uint64_t number = 1000 + «next_random(seed)» % 9000;",
      "(seed = static_cast<uint64_t>(i), next_random(seed))")
