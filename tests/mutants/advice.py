# Faults of the area "advice": see faults.py.

source("src/engine/advice.cpp", "advice_test")
fault("advice-001", "a share of the memory counts as no budget",
      "base_.kv.budget_bytes = «setup.share_bytes»;",
      "0")
fault("advice-002", "more than the machine has",
      "&& «s.reserved_bytes() <= max_bytes()» &&",
      "true")
fault("advice-003", "a pool that no engine starts with",
      "«s.pool.n_pages >= min_pages(s)» &&",
      "true")
fault("advice-004", "a context that is too short",
      "«s.longest >= positions» &&",
      "true")
fault("advice-005", "a pool that does not hold what is wanted",
      "«least_pages_needed(s, positions) <= s.pool.n_pages»;",
      "true")
fault("advice-006", "a budget too small by a page",
      "static_cast<uint64_t>(«std::max(min_pages(s), pages_needed(s, positions))») * page_bytes;",
      "std::max(min_pages(s), pages_needed(s, positions)) - 1")
fault("advice-007", "a budget that becomes smaller is raised",
      "proposal.lowers = «bytes < before»;",
      "false")
fault("advice-008", "a rule with half of the budget that fits",
      "std::string text = spec(«steps * step»);",
      "(steps + 1) / 2 * step")
same("advice-009", "the rule that failed is proposed again",
      "if («text == base_.kv.policy» || !usable(options, text, positions)) return",
      "false",
     "What was refused with these settings is not usable with them")
fault("advice-010", "a rule that does not fit either",
      "text == base_.kv.policy || «!usable(options, text, positions)») return",
      "false")
fault("advice-011", "a rule for other blocks",
      "«policies.check_block_size(options.kv.block_size);» options",
      "")
fault("advice-012", "a rule that a running engine's pool does not hold",
      "«min_pages(now) <= setup_.pool.n_pages && least_pages_needed(now, std::min(positions, "
      "now.options.context)) <= setup_.pool.n_pages»;",
      "true")
fault("advice-013", "beyond the trained positions: rules that do not move queries",
      'if («context_is_short») return {"sink", "h2o@compact"};',
      "false")
fault("advice-014", "the rule that was asked for is not tried first",
      "if («own == name») names.push_back(own);",
      "false")
fault("advice-015", "a batch larger than what works",
      "proposal.batch_size = «at->batch_size»;",
      "at->batch_size * 2")
fault("advice-016", "a smaller batch and a rule never go together",
      "else if («!other») {",
      "false")
fault("advice-017", "drop -c is missing",
      "if («given && !extend(0) && positions <= trained») extend(positions);",
      "false")
fault("advice-018", "a context beyond the trained one although a rule helps",
      "if («out.empty()») extend(positions);",
      "true")
fault("advice-019", "a rule for a longer context, but the context stays",
      "if (given) «found->context = 0;»",
      "")
fault("advice-020", "a context too long for the machine is not shortened",
      "if («wanted.positions == 0 && trial.base().kv.budget_bytes == 0») {",
      "false")
fault("advice-021", "where not all can be had, nothing is proposed",
      "{wanted.positions, «wanted.least»}",
      "wanted.positions")
fault("advice-022", "a mended SPEC that does not fit",
      "|| «!trial.usable(base, spec, positions)») return std::nullopt; Proposal",
      "false")
fault("advice-027", "the budget that exceeds the machine is not lowered to what it has",
      "if («too_much») {",
      "false")
fault("advice-028", "a new engine is to fit the pool there is",
      "«!wanted_.running» || options.batch_size != base_.batch_size) return true;",
      "false")

source("src/engine/engine_options.cpp", "advice_test")
fault("advice-023", "a budget beside a share",
      "options.kv.budget_bytes = *proposal.budget_bytes; «options.kv.budget_share = 0;»",
      "")
fault("advice-024", "a proposed rule beside the host's own",
      "if (proposal.policy) «take_spec(*proposal.policy, options.kv);»",
      "options.kv.policy = *proposal.policy;")
fault("advice-025", "the proposed context is not taken",
      "if (proposal.context) «options.context = *proposal.context;»",
      "")
fault("advice-026", "the proposed batch is not taken",
      "if (proposal.batch_size) «options.batch_size = *proposal.batch_size;»",
      "")

source("src/engine/spec_repair.cpp", "advice_test:Advice.AWrong*")
fault("advice-029", "names that are nothing alike are near",
      "size_t fewest = «3»;",
      "100")
fault("advice-030", "one sink unless said",
      "plus == std::string_view::npos ? «kUsualSinks» : number_in(tail.substr(0, plus), kUsualSinks)",
      "1")
fault("advice-031", "a budget of 64 unless said",
      "number_in(tail.substr(plus == std::string_view::npos ? 0 : plus), «kUsualBudget»);",
      "64")
fault("advice-032", "options are dropped although they could stay",
      "for (const std::string_view keep : {«options», std::string_view()}) { for (int64_t",
      "std::string_view()")
fault("advice-033", "a pyramid is of nothing",
      'if («form.wraps») {',
      "false")
fault("advice-034", "layers that no part names are left out",
      'if («std::find(taken.begin(), taken.end(), false) != taken.end()») parts.emplace_back("*=full");',
      "false")
fault("advice-035", "a layer is named twice",
      "named[i] = named[i] && «!taken[i]»;",
      "true")
fault("advice-036", "a sink's budget is its sinks'",
      "number_in(tail.substr(«plus == std::string_view::npos ? 0 : plus»), kUsualBudget);",
      "0")
fault("advice-037", "full:3 is no rule",
      'if («!form.has_budget») return form.name;',
      "false")

source("src/core/error.cpp", "advice_test")
fault("advice-038", "a context of 0 is raised to",
      "if («p.context == 0») parts",
      "false")
fault("advice-039", "what is lowered is raised",
      "const char* verb = «p.lowers» ?",
      "false")
fault("advice-040", "a problem holds its proposals",
      "problem_size_(«problem.size()»)",
      "joined(problem, proposals).size()")

source("src/engine/setup.cpp", "advice_test")
fault("advice-041", "a pool need not hold a bounded layer's longest sequence",
      "rule.bounded() ? «s.options.context» : least,",
      "least")
fault("advice-042", "a pool need not hold what bounded layers prefill",
      "if (rule.bounded()) «least = std::max<int64_t>(least, rule.max_resident(s.chunk));»",
      "")
fault("advice-043", "a pool has to hold more than the context",
      "return «std::min(least, s.options.context)»;",
      "least")
same("advice-044", "proposals for bounded rules hold the prompt alone",
      "wanted.positions = «s.policies.has_unbounded_layer() ? wanted.least : s.options.context»;",
      "wanted.least",
     "min_pages() asks for what the context needs all the same")
fault("advice-045", "what a host's own policy says gets proposals",
      "if («own») throw;",
      "false", tests="advice_test engine_behaviour_test conformance_test")

source("src/engine/engine_numbers.cpp", "engine_test:*Overflow*")
fault("advice-046", "lost keys are blamed on the weights",
      "if («!lost.empty()») { noted_overflows_",
      "false")
fault("advice-047", "after f16, f32",
      "setup.pool.geometry.type == DType::kF16 ? «KvType::kBF16» :",
      "KvType::kF32")
fault("advice-048", "after bf16, bf16 again",
      "KvType::kBF16 : «KvType::kF32»);",
      "KvType::kBF16")
fault("advice-049", "a warning at every step",
      "if («noted_overflows_») return;",
      "false")
fault("advice-050", "lost keys are not warned of",
      "if («lost.empty()») return; noted_overflows_",
      "true")
fault("advice-051", "logits that are no numbers are given out",
      "if («bad < 0») return std::nullopt;",
      "true")
fault("advice-052", "a single lost value is not counted",
      "if («n == 0») continue;",
      "n <= 1")

source("src/diagnose/quality.cpp", "quality_test cli_test:Cli.PerplexityRefusesWhatCannotBe")
fault("advice-053", "the budget holds the last rule's text",
      "budget.budget_bytes = «std::max(budget.budget_bytes.value_or(0), needed * page_bytes)»;",
      "needed * page_bytes")
fault("advice-054", "a contender that lacks room is not told from the baseline",
      "«one && is_contender» ? \"contender: \"",
      "false")
fault("advice-055", "where several rules lack room, what helps one is proposed",
      "if («one && !other.budget_bytes») proposals",
      "!other.budget_bytes")
fault("advice-056", "a pool of no given size has to hold the text",
      "if («runner.engine == nullptr && runner.options.kv.budget_bytes == 0») continue;",
      "false")
fault("advice-057", "a context too short is a budget too small",
      "if («setup.options.context < tokens») continue;",
      "false")
fault("advice-058", "a single rule gets a budget and nothing else",
      "if (one && «!other.budget_bytes») proposals",
      "false")

# ---- rules without a budget
source("src/engine/advice.cpp", "advice_test")
fault("advice-059", 'who asked for a budget is proposed a rule without one',
      'if («!trial.policies().has_unbounded_layer()») return true;',
      'false')
fault("advice-060", 'a rule with a budget is as good where no larger pool can be had',
      'return «can_be_raised» && 2',
      'true')
fault("advice-061", 'a rule that keeps little is as good',
      'can_be_raised && «2 * trial.kept(*fixed->policy) >= trial.pool_positions()»;',
      'true')
fault("advice-062", 'a rule without a budget is not tried with decisions that come more often',
      'return found ? found : «try_spec(trial, "lru" + short_interval(trial), positions)»;',
      'found')
source("src/engine/spec_repair.cpp", "advice_test")
fault("advice-063", 'a rule that was given no budget gets one',
      'if (const auto elastic = «without_budget(form, name, tail, options, n_layers, block_size)») {',
      'std::optional<std::string>()')
fault("advice-064", 'a budget that was given is taken away',
      '} else if («has_digit(tail)») {',
      'false')
fault("advice-065", 'sinks that were given become others',
      'rule += fmt::format(":{}", «number_in(tail.substr(0, plus), kUsualSinks)»);',
      '5')
fault("advice-066", 'a window that was given is taken away',
      '|| «has_digit(tail.substr(plus))») return std::nullopt;',
      'false')
fault("advice-067", 'elastic forms lose their options',
      'for (const std::string_view keep : {«options», std::string_view()}) { std::string text',
      'std::string_view()')

source("src/kv/policy_map.cpp", "advice_test")
fault('advice-068', "a host's rule in a list is taken for a wrong one of ours",
      'if («custom.contains(rule_name(part.substr(part.find(\'=\') + 1)))») return true;',
      'false')
fault('advice-069', "of a list only the first part may be a host's own",
      'if («comma == std::string_view::npos») return false;',
      'true')
source("src/eviction/registry.h", "advice_test eviction_test")
fault('advice-070', 'options belong to the name of a rule',
      'text.substr(0, text.find_first_of(«":@"»));',
      '":"')
