# Faults of the area "protect": see faults.py. Of positions that hosts protect, and turns of a chat
# that are pinned.

source("src/kv/protection.cpp", "protect_test")
fault("protect-001", "the block behind what is protected stays, too",
      "return range.first < end && «first < range.end»; });",
      "first <= range.end")
fault("protect-002", "the block before what is protected stays, too",
      "return «range.first < end» && first < range.end; });",
      "range.first <= end")
fault("protect-003", "two ranges in a block count it twice",
      "n += std::max<int64_t>(0, end - «std::max(next, range.first / block_size)»);",
      "range.first / block_size")
fault("protect-004", "a range that ends with a block counts the next one",
      "const int64_t end = «(range.end - 1)» / block_size + 1;",
      "range.end")
fault("protect-005", "what overlaps loses its beginning",
      "range = {«std::min(range.first, other.first)», std::max(range.end, other.end)};",
      "range.first")
fault("protect-006", "what overlaps loses its end",
      "range = {std::min(range.first, other.first), «std::max(range.end, other.end)»};",
      "range.end")
fault("protect-007", "a range comes last wherever it lies",
      "all.ranges_.insert(«at», range);",
      "all.ranges_.end()")
fault("protect-008", "letting go of the end lets go of the beginning",
      "if («before.first < before.end») all.ranges_.push_back(before);",
      "false")
fault("protect-009", "letting go of the beginning lets go of the end",
      "if («after.first < after.end») all.ranges_.push_back(after);",
      "false")
fault("protect-010", "what was taken back is protected when it comes again",
      "ranges_.back().end = «std::min(ranges_.back().end, length)»;",
      "ranges_.back().end")
fault("protect-011", "what lies behind the end of a text that is taken back stays protected",
      "while («!ranges_.empty() && ranges_.back().first >= length») ranges_.pop_back();",
      "false")
fault("protect-012", "a window is said to keep it",
      "if («rule.has_window()») {",
      "false")
fault("protect-013", "layers that share their budgets by need are said to keep it",
      "if («rule.shares_by_need») {",
      "false")
fault("protect-014", "the rule's own protection has no room beside it",
      "const int64_t needed = tokens + «most_protected(rule.schedule, block_size)»;",
      "0")
fault("protect-015", "a budget that just does is refused",
      "if (budget == kUnlimited || «needed <= budget») continue;",
      "needed < budget")
fault("protect-016", "elastic budgets fall as far as without it",
      "if («!is_elastic») return rules.least_budget;",
      "true")
fault("protect-017", "elastic budgets fall to where nothing is left to choose from",
      "static_cast<int32_t>(«budget - block_size»));",
      "budget")
fault("protect-018", "elastic budgets fall a position less far",
      "if («tokens + most_protected(asked, block_size) > asked.budget») return false;",
      "tokens + most_protected(asked, block_size) >= asked.budget")
fault("protect-019", "more is taken than any budget of an elastic rule holds",
      "if («most < low || !fits(most)») {",
      "false")

source("src/engine/sequence.cpp", "protect_test")
fault("protect-020", "a fork begins with nothing protected",
      "«protected_ = other.protected_;»",
      "")
fault("protect-021", "a fork's budget falls as far as if nothing were protected",
      "«least_budget_ = other.least_budget_;»",
      "")
fault("protect-022", "a budget that was too small before is no reason",
      "fallen = log_.least_budget(); «fallen < least») {",
      "false")
fault("protect-023", "protecting leaves the floor of budgets where it was",
      "what is to be protected, which takes {}; protect fewer positions, or earlier\", fallen, least); } "
      "cache_.set_protection(protected_, next, tables_); «least_budget_ = least;»",
      "")
fault("protect-024", "letting go leaves the floor of budgets where it was",
      "Protection next = protected_.without(range); const int32_t least = "
      "cache_.check_protection(rules_, next); cache_.set_protection(protected_, next, tables_); "
      "«least_budget_ = least;»",
      "")
fault("protect-025", "taking back leaves the floor of budgets where it was",
      "cache_.set_protection(protected_, kept, tables_); «least_budget_ = least;»",
      "")
fault("protect-026", "a truncation that is refused has let go already",
      "const int32_t least = cache_.check_protection(rules_, kept); const int64_t had",
      "const int32_t least = cache_.check_protection(rules_, kept); "
      "if (MUT) { cache_.set_protection(protected_, kept, tables_); } const int64_t had")
fault("protect-027", "whether the rule can keep what is left is not asked",
      "const int32_t least = cache_.check_protection(rules_, kept); const int64_t had",
      "const int32_t least = MUT ? least_budget_ : cache_.check_protection(rules_, kept); "
      "const int64_t had")
fault("protect-028", "what comes back after it was parked is not protected",
      "tables_ = cache_.open(&log_, rules_, «&protected_»);",
      "nullptr")

source("src/kv/decision_log.cpp", "protect_test")
fault("protect-029", "a budget that was lifted never fell",
      "if (entry.kind == DecisionKind::kBudget) least = «std::min(least, entry.first_position)»;",
      "entry.first_position")

source("src/kv/cache_impl.h", "protect_test")
source("src/kv/cached_sequence.h", "protect_test")
fault("protect-030", "rules choose what a host protects",
      "(protection != nullptr && «protection->meets(first, end)»);",
      "false")

source("src/kv/cache_stats.cpp", "protect_test")
fault("protect-031", "what a host protects is not counted as pinned",
      "«sequence.protects(sequence.layers[i].schedule, first, end)»)) {",
      "is_protected(sequence.layers[i].schedule, first, end, sequence.length)")

source("src/engine/pressure.cpp", "protect_test")
source("src/engine/levels.cpp", "protect_test")
fault("protect-032", "budgets fall below what is protected",
      "std::max<int64_t>(static_cast<int64_t>(asked), «member.sequence->least_budget()»);",
      "cache_.least_budget(member.sequence->rules())")
source("src/engine/pressure.cpp", "protect_test")
fault("protect-033", "it ends between two lengths at which its budget can fall",
      "if («sequence.is_kept_up() && at % interval == 0 && may_fall(sequence, request)») return 0;",
      "false")
fault("protect-034", "whoever protects anything ends before the pool is full",
      "if (sequence.is_kept_up() && at % interval == 0 && «may_fall(sequence, request)») return 0;",
      "true")

source("src/engine/requests.cpp", "protect_test")
fault("protect-035", "a full pool is not put down to what is protected",
      "if («reason == FinishReason::kKvFull && !request.options.lossless») {",
      "false")
fault("protect-036", "what is protected is blamed for a request that would not give in any case",
      "if (reason == FinishReason::kKvFull && «!request.options.lossless») {",
      "true")
fault("protect-037", "what is protected is blamed although no budget may fall",
      "if («!falls» || !sequence.is_kept_up()) return {};",
      "false")
fault("protect-038", "what is protected is blamed where nothing is",
      "if (!falls || «!sequence.is_kept_up()») return {};",
      "false")

source("src/engine/sessions.cpp", "protect_test")
fault("protect-039", "a feed that finds no room does not say that it is for what is protected",
      "const std::string kept = «what_is_kept(sequence)»;",
      "std::string()")
fault("protect-040", "positions beyond the longest sequence are protected",
      "if (first < 0 || n < 1 || n > longest || «first > longest - n») {",
      "false")
fault("protect-041", "no position at all is protected",
      "if (first < 0 || «n < 1» || n > longest ||",
      "n < 0")

CHAT = "cli_test:CliChat.*"
source("examples/paddock/conversation.cpp", CHAT)
fault("protect-042", "a turn that is pinned is not said to be",
      "«turn.is_pinned = true;»",
      "")
fault("protect-043", "a turn that was let go of is pinned again with the next rule",
      "«turn.is_pinned = false;»",
      "")
fault("protect-044", "another rule forgets which turns are pinned",
      "«protect_pinned();» // before rules could choose it",
      "")
fault("protect-046", "letting go of a turn keeps its blocks",
      "«engine_.unprotect(*session_, turn.start, said_.end_of(turn) - turn.start);»",
      "")
fault("protect-047", "the turn behind is pinned, too",
      "engine_.protect(*session_, turn.start, «said_.end_of(turn) - turn.start»); turn.is_pinned",
      "length() - turn.start")
source("examples/paddock/transcript.cpp", CHAT)
fault("protect-045", "the newest turn is pinned without its answer",
      "return next < turns_.size() ? turns_[next].start : «length()»;",
      "turn.prompt_end")

source("examples/paddock/advice.cpp", CHAT)
fault("protect-048", "a chat whose cache is full does not say that pinned turns fill it",
      "if («!result.error.empty()») text +=",
      "false")

source("src/engine/requests.cpp", "protect_test")
fault("protect-049", "rules are proposed that would protect as much",
      "if («!what_is_kept(sequence).empty()») { std::erase_if", "false")

source("examples/paddock/conversation.cpp", CHAT)
fault("protect-050", "turns that are pinned leave like others",
      "if («!said_.turns()[i].is_pinned») places.push_back(i);", "true")
fault("protect-051", "what was attended to least leaves, pinned or not",
      "if («turns[i].is_pinned») continue;", "false")
fault("protect-052", "a summary is not protected",
      "«engine_.protect(*session_, 0, end);»", "")
fault("protect-053", "who lets go of the first turn lets go of the summary",
      "«protect_summary();» // which the first turn has", "")

source("src/kv/protection.cpp", "trace_test")
fault("protect-054", "a trace is told of what has not changed",
      "if (!impl_->is_observed() || !tables || «protection == next») return;", "false")
source("src/kv/cache_manager.cpp", "trace_test explain_test")
fault("protect-055", "one that comes back is not said to be protected",
      "«impl_->config.observer->protects(id, protection->ranges());»", "")
source("src/diagnose/explain.cpp", "explain_test")
fault("protect-056", "what was let go of is protected to the end",
      "if (!meets && is_on) «out.back().to_step = told.step;»", ";")
source("src/diagnose/trace_story.cpp", "explain_test")
fault("protect-057", "what was let go of while it was parked stays protected",
      "now.protections.empty() ? std::vector<TraceProtection::Range>() : "
      "«now.protections.back().ranges»}",
      "before.protections.back().ranges")
