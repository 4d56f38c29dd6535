# Faults of the area "eviction": see faults.py.

source("src/eviction/scored.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-001", "tie: last_used the other way",
      "return used_a != used_b ? «used_a < used_b» : a.block > b.block;",
      "used_a > used_b")
fault("eviction-002", "tie: older block first",
      "return used_a != used_b ? used_a < used_b : «a.block > b.block»;",
      "a.block < b.block")
fault("eviction-003", "an infinite score passes rank_blocks()",
      "if («!std::isfinite(value)») {",
      "std::isnan(value)")
fault("eviction-004", "no runner-up named",
      "std::min(victims.size(), count + 1));",
      "std::min(victims.size(), count + (MUT ? 0 : 1)));")
fault("eviction-005", "name() drops @recent",
      "if (options_.recent) text +=",
      "if (options_.recent && !MUT) text +=")
fault("eviction-006", "name() drops @seed",
      "if (options_.seed) text +=",
      "if (options_.seed && !MUT) text +=")
fault("eviction-020", "rank_blocks() keeps what stood in its output",
      "«victims.clear();» if (!score)",
      "")
fault("eviction-021", "rank_blocks() names protected blocks",
      "if («view.blocks[i].is_protected») continue;",
      "false")
fault("eviction-022", "rank_blocks() names one block too many",
      "count < victims.size() && «freed < n_tokens»;",
      "freed <= n_tokens")
fault("eviction-023", "name() drops @every",
      "if (options_.every) text +=",
      "if (options_.every && !MUT) text +=")
fault("eviction-024", "name() drops @sinks",
      "if (options_.sinks) text +=",
      "if (options_.sinks && !MUT) text +=")
fault("eviction-025", "name() drops @compact",
      "if («options_.compact») text +=",
      "false")
fault("eviction-026", "@every is ignored",
      "schedule.every = «options_.every.value_or(schedule.every)»;",
      "schedule.every")
fault("eviction-027", "@sinks is ignored",
      "schedule.keep_first = «options_.sinks.value_or(0)»;",
      "0")
fault("eviction-028", "@recent is ignored",
      "schedule.keep_newest = «options_.recent.value_or(0)»;",
      "0")

source("src/eviction/h2o.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-007", "h2o: recent half rounded up",
      "budget == kUnlimited ? 0 : «budget / 2»;",
      "(budget + 1) / 2")
fault("eviction-072", "h2o: half of no budget is protected",
      "schedule.keep_newest = «budget == kUnlimited» ? 0",
      "false")
fault("eviction-008", "h2o: score not divided by tokens",
      "return view.blocks[block].mass / view.blocks[block].n_tokens;",
      "return view.blocks[block].mass / (MUT ? 1 : view.blocks[block].n_tokens);")
fault("eviction-030", "h2o: @recent counts as a share of the budget",
      "if («!options().recent») {",
      "true")
fault("eviction-031", "h2o: the recent half is thought fixed",
      "«schedule.newest_divisor = 2;»",
      "")

source("src/eviction/tova.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-009", "tova: two queries instead of one",
      "schedule.observe = 1;",
      "schedule.observe = MUT ? 2 : 1;")
fault("eviction-034", "tova: score not divided by tokens",
      "view.blocks[block].recent_mass / «view.blocks[block].n_tokens»;",
      "1")
fault("eviction-035", "tova: all attention counts",
      "return «view.blocks[block].recent_mass» /",
      "view.blocks[block].mass")

source("src/eviction/snapkv.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-010", "snapkv: sum instead of mean",
      "return sum / (2 * reach + 1);",
      "return MUT ? sum : sum / (2 * reach + 1);")
fault("eviction-011", "snapkv: protected neighbours count",
      "if (!view.blocks[i].is_protected) sum",
      "if (MUT || !view.blocks[i].is_protected) sum")
fault("eviction-012", "snapkv: right neighbourhood one short",
      "i <= std::min(n - 1, block + reach)",
      "i <= std::min(n - 1, block + reach - (MUT ? 1 : 0))")
fault("eviction-013", "snapkv: default window 64",
      "value_or(window_within(budget))",
      "value_or(MUT ? std::min(64, budget / 2) : window_within(budget))")
fault("eviction-036", "snapkv: larger blocks are smoothed again",
      "const int32_t reach = «kReach / view.block_size»;",
      "kReach")
fault("eviction-037", "snapkv: left neighbourhood one short",
      "std::max(0, «block - reach»)",
      "std::min(block, block - reach + 1)")
fault("eviction-038", "snapkv: @recent is ignored",
      "«options().recent.value_or(window_within(budget))»;",
      "window_within(budget)")
fault("eviction-039", "snapkv: the observing queries may leave",
      "«schedule.keep_newest = schedule.observe;»",
      "")
fault("eviction-040", "snapkv: decides at intervals",
      "«schedule.every = 0;»",
      "")

source("src/eviction/pyramid.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-014", "pyramid: slope over L instead of L-1",
      "const int32_t steps = «n_layers - 1»;",
      "n_layers")
fault("eviction-073", "pyramid: elastic shares are rounded up",
      "+ («is_elastic()» ? steps - 1 : 0)",
      "false")
fault("eviction-074", "pyramid: fixed shares are rounded down",
      "+ («is_elastic()» ? steps - 1 : 0)",
      "true")
fault("eviction-075", "pyramid: an unlimited budget is shared out",
      "if (n_layers < 2 || «mean == kUnlimited») return",
      "false")
fault("eviction-076", "pyramid: @min is forgotten",
      "int32_t min_budget() const override { return «inner_->min_budget()»; }",
      "0")
fault("eviction-077", "pyramid: never elastic",
      "bool is_elastic() const override { return «inner_->is_elastic()»; }",
      "false")
fault("eviction-015", "pyramid: base 64 instead of 32",
      "const int64_t base = «window_within(mean)»;",
      "std::min<int64_t>(64, mean / 2)")
fault("eviction-041", "pyramid: beta of 10",
      "const int64_t last = «(mean - base) / 20»;",
      "(mean - base) / 10")
fault("eviction-042", "pyramid: a model of one layer gets the lowest layer's budget",
      "if («n_layers < 2» || mean == kUnlimited) return",
      "n_layers < 1")
fault("eviction-043", "pyramid: huge budgets overflow",
      "«std::min<int64_t>(kUnlimited - 1, base + first - below)»",
      "base + first - below")
fault("eviction-044", "pyramid: nothing is measured",
      "PolicyNeeds needs() const override { return «inner_->needs()»; }",
      "PolicyNeeds{}")
fault("eviction-045", "pyramid: positions are original",
      "Positions positions() const override { return «inner_->positions()»; }",
      "Positions::kOriginal")
fault("eviction-046", "pyramid: every layer has the mean",
      "return inner_->schedule_for(«share_of(budget, layer, n_layers)»);",
      "budget")

source("src/eviction/random.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-016", "random: length not in the lot",
      "lot = mix(lot ^ static_cast<uint64_t>(view.length));",
      "if (!MUT) lot = mix(lot ^ static_cast<uint64_t>(view.length));")
fault("eviction-017", "random: layer not in the lot (all layers lose the same)",
      "lot = mix(lot ^ static_cast<uint64_t>(view.layer));",
      "if (!MUT) lot = mix(lot ^ static_cast<uint64_t>(view.layer));")
fault("eviction-047", "random: @seed is ignored",
      "options().seed.value_or(0)",
      "(MUT ? 0 : options().seed.value_or(0))")
fault("eviction-048", "random: position not in the lot",
      "«lot = mix(lot ^ static_cast<uint64_t>(view.blocks[block].first_position));»",
      "")

source("src/kv/reclaim_policy.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-018", "reclaim list keeps removed blocks",
      "void ReclaimOrder::on_removed(int32_t block) { «room_.lists.remove(block);»",
      "")
fault("eviction-054", "reclaim list keeps used blocks",
      "void ReclaimOrder::on_use(int32_t block) { «room_.lists.remove(block);»",
      "")
fault("eviction-055", "reclaim list: a block kept again keeps its old place",
      "«remove(block);» const int32_t slot",
      "")
fault("eviction-056", "reclaim list: sizes do not shrink",
      "«--sizes_[link.list];»",
      "")
fault("eviction-057", "reclaim list: the newest leaves first",
      "«links_[list].after» - n_lists_;",
      "links_[list].before")

source("src/eviction/registry.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-019", "registry: budget fully protected accepted",
      "if («int64_t{schedule.keep_first} + schedule.keep_newest < budget») return;",
      "int64_t{schedule.keep_first} + schedule.keep_newest <= budget")
fault("eviction-078", "a floor may be protected altogether",
      "if («is_elastic && !rule.least») return;",
      "is_elastic")
fault("eviction-079", "@min is accepted beside a budget",
      "parse_arguments(rule, 1, entry.form); «refuse_floor(rule);»",
      "")
fault("eviction-080", "@min is accepted by windows",
      "void refuse_trim_options(const ParsedRule& rule) { «refuse_floor(rule);»",
      "")
fault("eviction-081", "@min is ignored",
      "«options.least = rule.least;»",
      "")
fault("eviction-083", "snapkv and random may go without a budget",
      "if («entry.has_elastic») return kUnlimited;",
      "true")
fault("eviction-084", "elastic sink and window accept @recent",
      "if (rule.sinks || «rule.recent» || rule.seed) {",
      "false")
fault("eviction-085", "elastic sink is original unless told",
      "parse_tokens(rule.text, rule.tail), «Positions::kCompact»)",
      "Positions::kOriginal")
fault("eviction-086", "elastic window is compact unless told",
      "return oldest_rule(rule, 0, «Positions::kOriginal»);",
      "Positions::kCompact")
fault("eviction-087", "sink:S+ is a rule without a budget",
      "&& «rule.tail.find('+') == std::string_view::npos») {",
      "rule.tail.back() == '+'")
fault("eviction-088", "a colon without a budget is no budget",
      "int32_t budget_of(const ScoredEntry& entry, ParsedRule& rule) { if («!rule.has_tail») {",
      "rule.tail.empty()")
fault("eviction-061", "@seed is accepted by every rule",
      'if («rule.seed && name != "random"») {',
      "false")
fault("eviction-062", "snapkv accepts @every",
      'if («rule.every && name == "snapkv"») {',
      "false")
fault("eviction-063", "a budget that stands for no limit is accepted",
      "if («rule.arguments[0] == kUnlimited») {",
      "false")
fault("eviction-064", "sinks and window may reach what stands for no limit",
      "if («sum >= kUnlimited») {",
      "sum > kUnlimited")
fault("eviction-065", "window is compact unless told",
      "rule.positions.value_or(«Positions::kOriginal»)",
      "Positions::kCompact")
fault("eviction-066", "sink is original unless told",
      "rule.positions.value_or(«Positions::kCompact»)",
      "Positions::kOriginal")
fault("eviction-067", "rules without scores accept @every",
      "if («!rule.every» && !rule.sinks",
      "true")
fault("eviction-068", "rules without scores accept @seed",
      "&& «!rule.seed») return;",
      "true")
fault("eviction-069", "full accepts positions",
      "if (rule.positions) { fail(ErrorCode::kInvalidArgument, \"policy rule '{}': full keeps",
      "if (rule.positions && !MUT) { fail(ErrorCode::kInvalidArgument, \"policy rule '{}': full keeps")
fault("eviction-071", "a built-in name may be taken by a host",
      "if («find_scored(name) != nullptr» || std::any_of",
      "false")

source("src/eviction/rule_text.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-082", "a floor may be what stands for no limit",
      'parse_number(rule.text, value, 1, «kUnlimited - 1», "a number of positions")',
      "kUnlimited")
fault("eviction-058", "0 is a number of tokens",
      'parse_number(rule, text, «1», kUnlimited, "a number of tokens")',
      "0")
fault("eviction-059", "seed 0 is refused",
      'parse_number(rule.text, value, «0», std::numeric_limits<int64_t>::max(), "a seed")',
      "1")
fault("eviction-060", "an option given twice: the second holds",
      "if («!given») return;",
      "true")
fault("eviction-070", "a number may be followed by anything",
      "|| «end != text.data() + text.size()» || value < least",
      "false")

source("src/eviction/rules.h", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-029", "@compact is ignored",
      "return «options_.compact» ? Positions::kCompact",
      "false")

fault("eviction-089", "elastic rules have no floor",
      "return «options_.least.value_or(0)»;",
      "0")
fault("eviction-090", "no scored rule is elastic",
      "bool is_elastic() const override { return «options_.budget == kUnlimited»; }",
      "false")

source("src/eviction/oldest.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-091", "elastic sink: the newest leave",
      "static_cast<double>(«view.blocks[block].first_position»)",
      "-view.blocks[block].first_position")
fault("eviction-092", "elastic sink: sinks may leave",
      "«schedule.keep_first = sinks_;»",
      "")
fault("eviction-093", "elastic sink: name() drops @original",
      'options().compact ? «""» : "@original"',
      '"@original"')

source("src/diagnose/elastic_budgets.cpp", "conformance_test")
fault("eviction-094", "layers may take more than the budget",
      "if («sum > int64_t{budget} * map.size()») {",
      "false")
fault("eviction-095", "what is protected may fall",
      "if («after >= before») return true;",
      "true")
fault("eviction-096", "a larger budget may leave no choice",
      "if (budget < least.budget || «leaves_choice(answers[layer], least.block_sizes[0])») continue;",
      "true")
fault("eviction-097", "nobody asks another object",
      "for (const EvictionPolicy* again : {map.layer(layer).policy.get(), «&twin»}) {",
      "map.layer(layer).policy.get()")
fault("eviction-098", "what is protected may change from one call to the next",
      "if («answers[layer]» == again->schedule(layer, map.size(), budget)) continue;",
      "[&] { TrimSchedule first = answers[layer]; first.keep_first = again->schedule(layer, map.size(), "
      "budget).keep_first; return first; }()")
fault("eviction-099", "large budgets are not asked about",
      "power <= «kMostBudget»; power *= 2",
      "2048")
fault("eviction-100", "small budgets are not asked about",
      "i < «kFewBudgets» &&",
      "1")
fault("eviction-101", "driven under another budget",
      "return policy_->schedule(layer, n_layers, «budget_»);",
      "2 * budget_")

source("src/diagnose/conformance.cpp", "conformance_test")
fault("eviction-102", "an elastic policy is not driven at all",
      "if («settings_->is_elastic») { check_elastic();",
      "settings_->is_elastic && (check_budgets(policy_, *twin_, options_.n_layers, block_sizes_, "
      "findings_), false)")
fault("eviction-103", "notes do not say under which budget",
      "report_.notes.push_back(«where + \": \" + note»);",
      "note")

source("src/diagnose/findings.cpp", "conformance_test")
fault("eviction-104", "findings of another suite count once",
      "add(f.kind, f.severity, where + \": \" + f.sentence, «f.times»);",
      "1")

source("src/diagnose/policy_settings.cpp", "conformance_test")
fault("eviction-105", "is_elastic() may change",
      "if («a.is_elastic != b.is_elastic») differs",
      "false")
fault("eviction-106", "min_budget() may change",
      "if («a.min_budget != b.min_budget») differs",
      "false")

source("src/eviction/lru.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-032", "lru: the first position stands for the last use",
      "static_cast<double>(«view.blocks[block].last_used»)",
      "view.blocks[block].first_position")

source("src/eviction/knorm.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-033", "knorm: large norms stay",
      "return «-view.blocks[block].key_norm»;",
      "view.blocks[block].key_norm")

source("src/eviction/sink.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-049", "sink: name() drops @original",
      '«positions_ == Positions::kOriginal» ? "@original"',
      "false")
fault("eviction-050", "sink: sees one position more",
      "return {sinks_, «window_»};",
      "window_ + 1")
fault("eviction-051", "sink: always original",
      "Positions positions() const override { return «positions_»; }",
      "Positions::kOriginal")

source("src/eviction/window.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-052", "window: name() drops @compact",
      '«positions_ == Positions::kCompact» ? "@compact"',
      "false")
fault("eviction-053", "window: sees one position more",
      "return {0, «window_»};",
      "window_ + 1")

source("src/eviction/cake.cpp", "cache_test:Cake.*")
fault("eviction-107", "cake: entropy of the mass of all queries",
      "const double share = «block.recent_mass / recent»;",
      "block.mass / recent")
fault("eviction-108", "cake: new blocks count as moved",
      "if («block.mass <= block.recent_mass || after <= 0») continue; const double moved",
      "before <= 0 || after <= 0")
fault("eviction-109", "cake: shares among all blocks are compared with those among the old ones",
      "const double moved = block.recent_mass / «after» -",
      "recent")
fault("eviction-110", "cake: the shift is not that of two samples",
      "moved * moved / «4»;",
      "2")
fault("eviction-111", "cake: without a shift all get the same",
      "return entropy * std::sqrt(std::sqrt(«shift + kStill»));",
      "shift")
fault("eviction-127", "cake: a few layers get nearly all",
      "return entropy * std::sqrt(«std::sqrt(shift + kStill)»);",
      "shift + kStill")
source("src/eviction/share_out.cpp", "cache_test:Cake.*")
fault("eviction-112", "cake: no base",
      "const double share = «base» + factor",
      "0")
fault("eviction-113", "cake: a layer may get more than it holds",
      "std::max(low, «std::min(limit, bounds[layer].most)»);",
      "limit")
fault("eviction-114", "cake: a layer may get less than it needs",
      "const int64_t low = «std::max(bounds[layer].least, base)»;",
      "base")
fault("eviction-115", "cake: a share more than there is",
      "(«shares.sum(middle) <= total» ? low : high)",
      "shares.sum(middle) <= total + 1")
fault("eviction-116", "cake: what rounding leaves over is lost",
      "«++budgets[layer];» --left;",
      "")
fault("eviction-117", "cake: who has no preference gets the base and no more",
      "largest > 0 ? «std::max(needs[layer] / largest, kFaintest)» : 1;",
      "needs[layer] / largest")
fault("eviction-118", "cake: a layer may get all that others do not need",
      "std::max(low, std::min(«limit», bounds[layer].most));",
      "int64_t{1} << 40")
fault("eviction-119", "cake: where nobody wants anything all have the base",
      "«largest > 0» ? std::max",
      "true")
fault("eviction-120", "cake: tables are made as if others had no base",
      "n_layers * budget - «others»);",
      "0")
source("src/eviction/cake.cpp", "cache_test:Cake.*")
fault("eviction-121", "cake: attention is not measured for a rule that does without",
      "«needs.attention = true;»",
      "", tests="cache_test conformance_test")
fault("eviction-122", "cake: recent are all queries of an interval",
      "schedule.observe = «std::min(kQueries, schedule.every)»;",
      "schedule.every", tests="cache_test")
fault("eviction-123", "cake: what the inner rule looks at is that of the share",
      "schedule.observe = inner_->schedule_for(«inner_->options().budget»).observe;",
      "budget", tests="cache_test replay_test")
fault("eviction-124", "cake: an inner rule that looks at less is given 32 queries",
      "if («schedule.observe == 0») schedule.observe =",
      "true", tests="cache_test")
fault("eviction-125", "cake: is not elastic",
      "bool is_elastic() const override { return «inner_->is_elastic()»; } TrimSchedule schedule(int32_t, int32_t, int32_t budget)",
      "false", tests="cache_test elastic_test")
fault("eviction-126", "cake: has no floor",
      "int32_t min_budget() const override { return «inner_->min_budget()»; } bool shares_by_need()",
      "0", tests="cache_test conformance_test")
