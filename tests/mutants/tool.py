# Faults of the area "tool": see faults.py.

REFUSED = "cli_test:CliChat.WhatWasRefusedIsWhatIsRetried "
REPORT = "cli_test:CliReport."
SIZES = "cli_test:CliChat.SizesMayHaveAPointAndAShortUnit"
NUMBERS = "cli_test:CliTrouble.NumbersAreJudgedAsTheSamplerGetsThem"
PLOT = "cli_test:CliReport.APlotOfOneContenderHasLabelledAxes cli_test:CliReport.SeriesDiffer*"

source("examples/paddock/conversation.cpp", "advice_test:Turns.* cli_test:CliChat.*")
fault("tool-001", "/retry forgets what was refused",
      "«refused_ = text;»",
      "", tests=REFUSED)
fault("tool-002", "/retry says what was refused and then answered",
      "result = answer(text, next_turn(text)); «refused_.reset();»",
      "", tests=REFUSED)
fault("tool-003", "/clear keeps what was refused",
      "next_number_ = 1; «refused_.reset();»",
      "", tests=REFUSED)
fault("tool-004", "a stop token that does not end turns stays",
      "take_back_to(said_.end() - «message.take_back»);",
      "int64_t{0}")
fault("tool-006", "what could not be read again is lost",
      "std::vector<paddock::TokenId> input(«said_.tokens().begin() + held()», said_.tokens().end());",
      "said_.tokens().end()")
fault("tool-007", "/retry draws the same answer",
      "«++generate_.sampling.seed;»",
      "", tests="cli_test:CliChat.RetryDraws*")
fault("tool-008", "a /retry that fails loses the answer there was",
      "«said_ = before;» // the session",
      "")
fault("tool-010", "/retry says the last answered message, not what was refused",
      "if (refused_) return answer",
      "if (refused_ && !MUT) return answer", tests=REFUSED)
fault("tool-011", "rules that fail leave a session that is closed",
      "try { «reopen(before);»",
      "")
fault("tool-012", "rules are changed before they are looked at",
      "«engine_.check_kv_policy(spec, std::max<int64_t>(0, length() - 1));»",
      "")
fault("tool-013", "/clear keeps the session's tokens",
      "if (session_) «engine_.truncate(*session_, 0);» said_.clear();",
      "", tests="cli_test:CliTrouble.AConversation* cli_test:CliChat.*")
fault("tool-014", "/clear keeps the turns",
      "«said_.clear();» next_number_",
      "", tests="cli_test:CliTrouble.AConversation* cli_test:CliChat.*")
fault("tool-015", "a full pool has no place for the newest token",
      "positions < engine_.options().context ? «positions + 1» : positions",
      "positions", tests="cli_test:CliChat.AFullCache*")
fault("tool-017", "what rules have dropped cannot be taken back",
      "if («e.code() != paddock::ErrorCode::kInvalidArgument») throw; engine_.truncate",
      "true", tests="cli_test:CliTrouble.APolicyThatCannotHold*")
fault("tool-018", "read again, prompts end nowhere",
      "feed_to(std::min(turn.prompt_end, end), «turn.prompt_end»);",
      "0")
fault("tool-019", "read again, a prompt is said a token late",
      "feed_to(std::min(«turn.start - 1», end), 0);",
      "turn.start")
fault("tool-020", "rules are changed, but nothing is read again",
      "session_ = engine_.open_session(); «catch_up();» }",
      "")

NOTES = "cli_test:CliChat.WhatLeavesIsSaidAtEachTurn cli_test:CliChat.SnapKvActsAtEveryTurn"
source("examples/paddock/chat_record.cpp", "cli_test:CliChat.*")
fault("chat-record-001", "a record beside a file has no bytes",
      "«bytes_ += bytes;»", "if (!next) bytes_ += bytes;")
fault("chat-record-002", "a trace's file gets nothing in a chat",
      "«if (next) next(bytes);»", "")
fault("chat-record-003", "a file gets texts that nobody asked for",
      "if («!trace.sink») trace.tokens = true;", "true")
fault("chat-record-004", "what left an earlier session is told",
      "if (is_by_rule && «session_of[removal->event.sequence] == session») last", "true")
fault("chat-record-005", "what the user dropped counts as a rule's",
      "if («is_by_rule» && session_of", "true")
fault("chat-record-006", "what left first is told",
      "session) «last = removal->event;»", "if (!last) last = removal->event;")
fault("chat-record-007", "where a text lay in an earlier session is told",
      "«std::erase_if(spans, [&](const auto& span) { return span.session != session; });»", "")
fault("chat-record-008", "a text is looked for in a record without any",
      "if («!text.empty() && !has_tokens_») {", "false")

source("examples/paddock/kv_notes.cpp", NOTES)
fault("tool-021", "what leaves by a decision is not said",
      "pages += «stats.total.pages_removed[static_cast<size_t>(reason)]»;",
      "reason == 2 ? 0 : stats.total.pages_removed[static_cast<size_t>(reason)]")
fault("tool-022", "what has left is said again at every turn",
      "«pages_ += pages;»",
      "")
fault("tool-023", "positions of earlier turns are named again",
      "«next_ = stats.events;»",
      "")
fault("tool-024", "the remedy is told at every turn",
      "if («remedy_for_ == rule») return text;",
      "false")
fault("tool-025", "no remedy is told",
      "return «text + remedy(positions)»;",
      "text")
fault("tool-026", "full is a remedy even where it does not fit",
      'engine_.check_kv_policy("full", «wanted»);',
      "0")
fault("tool-027", "the remedy keeps the rule",
      '«whole.policy = "full";»',
      "")
fault("tool-028", "what a user took back left by the rule",
      "|| «!paddock::is_by_rule(event.reason)») continue;",
      "false", tests="cli_test:CliChat.WhatIsTakenBackIsNotWhatARuleLetGo")
fault("tool-029", "all runs of positions are named",
      "if («shown == 3») return out",
      "false", tests="cli_test:CliChat.OfManyRunsThreeAreNamed*")
fault("tool-030", "ranges that meet are two",
      "«std::prev(at)->second >= first») first",
      "std::prev(at)->second > first")

CHAT = "cli_test:CliChat.*"
SLASH = "cli_test:CliChat.ALineThatBeginsWithASlashMayBeAMessage"
FULL = "cli_test:CliChat.AFullCacheIsSaidOnceAndAnotherPolicyGoesOn"
LACK = "cli_test:CliChat.LackOfRoomIsSaidInEveryFormAndIsOne"
source("examples/paddock/chat_line.cpp", CHAT)
fault("tool-031", "// is not one slash",
      'return {ChatLine::Kind::kMessage, «line.substr(1)», ""};',
      "line", tests=SLASH)
fault("tool-032", "// begins a command",
      'if («line.starts_with("//")») return',
      "false", tests=SLASH)
fault("tool-033", "a message whose first word nearly names a command is refused",
      'if («!argument.empty()») return {ChatLine::Kind::kMessage, line, ""}; for',
      "false", tests=SLASH)
fault("tool-034", "/etc/hosts is no message",
      'return {ChatLine::Kind::kMessage, line, ""}; } std::string chat_help() {',
      'return MUT ? refuse("there is no such command") : ChatLine{ChatLine::Kind::kMessage, line, ""}; } '
      "std::string chat_help() {", tests=SLASH)
fault("tool-035", "two letters swapped name no command",
      "return «swapped» ||",
      "false", tests=SLASH)
fault("tool-036", "a command in capitals is a message",
      "argument.empty() ? «in_small_letters(name)» : name;",
      "name", tests=SLASH)
fault("tool-037", "what follows a command that takes nothing is ignored",
      "if («argument.empty() || command.argument != nullptr») {",
      "true", tests=SLASH)
fault("tool-038", "/save is a message",
      'if («meant == "save" || meant == "load"») return',
      "false", tests=SLASH)

source("examples/paddock/chat.cpp", CHAT)
fault("tool-039", "a message that was refused: exit code 0",
      "«all_taken_ &= say(line.text);»",
      "say(line.text);", tests=FULL)
fault("tool-040", "a refused /policy ends the conversation",
      "if («!is_refusal(e)») throw;",
      "true", tests="cli_test:CliChat.ARefused*")
fault("tool-041", "the same advice at every message that does not fit",
      "const bool known = «!advice.empty() && advice == advice_»;",
      "false", tests=FULL)
fault("tool-042", "other advice is not said after the first",
      "const bool known = !advice.empty() && «advice == advice_»;",
      "!advice_.empty()")
fault("tool-043", "a full cache is not said",
      "if («lack.empty()») { cut_off_",
      "true", tests=LACK)
fault("tool-044", "an answer that was cut off: exit code 0",
      'advice_ = paddock::to_text(result.proposals, option_names("/policy")); «return false;»',
      "return true;", tests=LACK)
fault("tool-045", "a full cache is said again at the next turn",
      "if («cut_off_ != result.finish_reason») note(",
      "true")
fault("tool-046", "a full cache is said once for all times",
      "if (lack.empty()) { «cut_off_ = result.finish_reason;»",
      "")
fault("tool-047", "advice that was said before /clear is known",
      "«advice_.clear();» cut_off_",
      "")
fault("tool-048", "a full cache that was said before /clear is known",
      "«cut_off_.reset();»",
      "")
fault("tool-049", "/stats: what is bounded has a limit",
      "if («most == paddock::kUnlimited») {",
      "false", tests="cli_test:CliTrouble.APolicyThatCannotHold* cli_test:CliChat.*")
fault("tool-050", "/stats: the limit is always the context's",
      '«most < context» ? "--kv-budget"',
      "false", tests=FULL)
fault("tool-051", "lines that end as on Windows are others",
      r"if («line.ends_with('\r')») line.pop_back();",
      "false", tests="cli_test:CliTrouble.LinesMayEndAsOnWindows")
fault("tool-052", "--single-turn reads on",
      "for (std::string line; «!args.single_turn» &&",
      "true")
fault("tool-053", "a first message that was refused: exit code 0",
      "args.prompt.empty() || «chat->say(args.prompt)»;",
      "(chat->say(args.prompt), true)", tests=LACK)
fault("tool-054", "an unknown template: the library's option is named",
      'words.replace(at, option.size(), «"--chat-template"»);',
      '"ChatOptions::template_name"', tests="cli_test:CliTrouble.AnUnknownChatTemplate*")
fault("tool-055", "--single-turn needs no message",
      "if («args.single_turn && args.prompt.empty()») {",
      "false")

source("examples/paddock/advice.cpp", SIZES)
fault("tool-056", "1.5GiB is no size",
      "if (ok && «end != last && *end == '.'») {",
      "false")
fault("tool-057", "MB is MiB",
      'scale *= «rest == "B"» ? 1000 : 1024;',
      "false")
fault("tool-058", "units in small letters are none",
      "«c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));»",
      "")
fault("tool-059", "half a byte",
      "(fraction == 0 || «scale > 1»);",
      "true")
fault("tool-060", "a size beyond all numbers",
      "if (ok && «!__builtin_mul_overflow(whole, scale, &bytes)» &&",
      "(bytes = whole * scale, true)")
fault("tool-061", "what follows the point is lost",
      "const auto more = «static_cast<uint64_t>(fraction * static_cast<double>(scale))»;",
      "uint64_t{0}")
fault("tool-062", "a size of 0",
      "&& «bytes > 0») {",
      "true")
same("tool-063", "a point with nothing after it",
      "ok = error == std::errc() && «after_fraction > end + 1»;",
      "true",
     "from_chars() finds no number in a point alone")
fault("tool-064", "sizes are rounded down",
      "(bytes >> shift) + «((bytes & ((1ULL << shift) - 1)) != 0 ? 1 : 0)»,",
      "0", tests="cli_test:CliChat.RefusalsNameOptionsWithValuesThatWork")
fault("tool-065", "a share above all",
      "percent > 0 && «percent <= 100»)",
      "true", tests="cli_test:Cli.WrongUsageIsTwoAndOneLine")
fault("tool-066", "a full context is not said",
      "else if («result.finish_reason == paddock::FinishReason::kContext») {",
      "false", tests=LACK)
fault("tool-067", "what would work is not said",
      "if («!error.proposals().empty()») {",
      "false", tests="cli_test:CliChat.RefusalsNameOptionsWithValuesThatWork")
fault("tool-068", "what would work after a full cache is not said",
      "if (text.empty() || «result.proposals.empty()») return text;",
      "true", tests=LACK)

source("examples/paddock/args.cpp", NUMBERS)
fault("tool-069", "what the library says is said of its own setting",
      "if («range == std::string_view::npos || !problem.starts_with(std::string(g.setting) + \" is \")») {",
      "true")
fault("tool-070", "an option that is wrong is called by the first one's name",
      "range == std::string_view::npos || «!problem.starts_with(std::string(g.setting) + \" is \")») {",
      "false")
fault("tool-076", "a bias of -inf is refused",
      "if (!std::isfinite(bias) && «!forbids») {",
      "true")
fault("tool-077", "a bias of -1e39 forbids",
      "const bool forbids = «std::isinf(wide)» && wide < 0;",
      "std::isinf(bias)")
fault("tool-078", "what follows a bias is ignored",
      "if («bias_end != end» || std::isnan(wide)) refuse(kForm);",
      "false")
fault("tool-079", "what follows a bias's token is ignored",
      "error != std::errc() || «id_end != at» ||",
      "false")
fault("tool-080", "a seed for what is greedy as a float",
      "if (seed.empty() && «chosen.temperature > 0») note(",
      "temperature > 0")
fault("tool-088", "what follows a seed is ignored",
      "check(error == std::errc() && «parsed == end», \"--seed\"",
      "true", tests="cli_test:CliTrouble.ValuesThatAreNone*")

source("examples/paddock/common.cpp", NUMBERS)
fault("tool-082", "- is no stdin",
      '«path == "-"» ? stdin :',
      "false", tests=REPORT + "DashIsStdin*")
fault("tool-083", "- is no stdout",
      'if («path_ == "-"») return print(bytes);',
      "false", tests=REPORT + "DashIsStdout*")
fault("tool-084", "a link is replaced",
      "std::filesystem::exists(status) && «!std::filesystem::is_regular_file(status)») partial_",
      "false", tests="cli_test:CliTrouble.OutputGoesIntoWhatIsNoFile")
fault("tool-085", "what fails leaves a file behind",
      'if («!done_ && path_ != "-" && partial_ != path_») std::filesystem::remove',
      "false", tests="cli_test:Cli.PerplexityRefusesWhatCannotBe")
fault("tool-087", "errors are several lines",
      'note("paddock: " + «one_line(message)» + "\\n");',
      "std::string(message)", tests="cli_test:CliTrouble.ErrorsHoldNothing*")
fault("tool-089", "the engine's refusals of options: exit code 1",
      "if («e.code() == paddock::ErrorCode::kInvalidArgument») throw UsageError(text);",
      "false", tests="cli_test:Cli.WrongUsageIsTwoAndOneLine")

source("examples/paddock/kv_report.cpp", REPORT + "TheWatchScalesToTheBudget")
fault("tool-090", "the watch is scaled to what is held",
      "const int64_t pool = «std::max<int64_t>(1, stats.pool_pages)»;",
      "std::max<int64_t>(1, stats.total.pages_active)")
fault("tool-091", "events of an earlier run stay",
      "if (file_ != nullptr && «ftruncate(fileno(file_), 0) != 0» &&",
      "false", tests="cli_test:CliTrouble.AWrongOptionCostsNoFile")
fault("tool-092", "a wrong option costs the events of an earlier run",
      'std::fopen(path.c_str(), «"a"»);',
      '"w"', tests="cli_test:CliTrouble.AWrongOptionCostsNoFile")
fault("tool-093", "events that could not be written are lost in silence",
      "file_ = nullptr; if («error_ != 0») {",
      "false", tests="cli_test:CliTrouble.EventsAreWholeLines*")
fault("tool-094", "events are written when the file is closed",
      "«std::setvbuf(file_, nullptr, _IONBF, 0);»",
      "", tests="cli_test:CliTrouble.EventsAreWholeLines*")

source("examples/paddock/log.cpp", "cli_test:CliLog.*")
fault("tool-095", "a message is several lines of the log",
      "const std::string text = «one_line({message.payload.data(), message.payload.size()})»;",
      "std::string(message.payload.data(), message.payload.size())")
fault("tool-096", "what goes into the file goes to stderr, too",
      "«sinks[0]->set_level(spdlog::level::warn);»",
      "")
fault("tool-097", "a log that is not complete: exit code 0",
      "if («g_failure.empty()») return; throw",
      "true")
fault("tool-098", "the tool's own errors are not in the log",
      "if («g_file != nullptr») g_file->error(",
      "false")
fault("tool-099", "controls of C1 are let through",
      "return code >= «kLeast[n]» &&",
      "(n == 2 ? 0x80U : kLeast[n])", tests="cli_test:CliTrouble.ErrorsHoldNothing*")
fault("tool-100", "surrogates are let through",
      "const bool surrogate = «code >= 0xD800 && code <= 0xDFFF»;",
      "false", tests="cli_test:CliTrouble.ErrorsHoldNothing*")
fault("tool-101", "a log that cannot be written is found out later",
      "«check_writable(file_);»",
      "")

source("examples/paddock/perplexity.cpp", "cli_test:CliChat.SnapKvActsAtEveryTurn")
fault("tool-102", "a contender's SPEC: --kv-policy is named",
      'describe(e, «e.problem().starts_with("contender")» ?',
      "false", tests="cli_test:CliChat.RefusalsNameOptionsWithValuesThatWork")
fault("tool-103", "against: --sweep is named",
      'const char* contender = «args.against.empty()» ? "--sweep"',
      "true", tests="cli_test:CliChat.RefusalsNameOptionsWithValuesThatWork")
fault("tool-104", "snapkv that never acted is not said",
      "if («layer.trim_decisions > 0 || !decides_once(layer, stats.layers.size())») continue;",
      "true")
fault("tool-105", "snapkv that acted never acted",
      "if («layer.trim_decisions > 0» || !decides_once(layer, stats.layers.size())) continue;",
      "false")
fault("tool-106", "a rule that decides again and again is said to decide once",
      "return «rule->schedule(layer.layer, static_cast<int32_t>(n_layers)).every == 0»;",
      "rule->schedule(layer.layer, static_cast<int32_t>(n_layers)).every >= 0")
fault("tool-107", "a rule that never acted is said at every layer",
      '"say where with --prompt-tokens N")); «break;»',
      "")
fault("tool-108", "a text has to fit the trained context",
      "if («options.engine.context == 0») options.engine.context",
      "false", tests="cli_test:CliReport.* cli_test:Cli.*")
fault("tool-109", "the plot leaves out the type of the cache",
      'args.engine.kv_type.empty() ? "" : «args.engine.kv_type + ", "»;',
      'std::string()', tests=PLOT)
fault("tool-110", "the plot names no budget where none is given",
      'args.engine.kv_budget.empty() ? «"what the rules need"» : args',
      '""', tests=PLOT)
fault("tool-111", "a plot of stdin is of -",
      '«text == "-"» ? "stdin" : name(text)',
      "false", tests="cli_test:CliReport.*")
fault("tool-112", "--svg and --per-position write into one file",
      "if («!args.svg.empty() && args.svg == args.per_position») {",
      "false", tests="cli_test:Cli.PerplexityRefusesWhatCannotBe")
fault("tool-113", "--facts: the pool holds the text alone",
      "if (args.facts) «options.positions += paddock::recall_tokens(*model->tokenizer(), outcome.facts);»",
      "", tests="cli_test:CliReport.* cli_test:Cli.*")

source("examples/paddock/wording.cpp", PLOT)
fault("tool-114", "a text's < is SVG's",
      'case \'<\': out += «"&lt;"»;',
      '"<"')
fault("tool-191", "a beginning ends within a character",
      "«while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;»",
      "", tests="cli_test:CliWording.*")
fault("tool-189", "two neighbours are a range of layers",
      'end > i + «2» ? "-" : ","',
      "1", tests="cli_test:CliWording.*")
fault("tool-190", "the last of several names has a comma",
      'i + 1 < names.size() ? ", " : «" or "»',
      '", "', tests="cli_test:CliWording.*")

source("examples/paddock/quality_plot.cpp", PLOT)
fault("tool-115", "points have no titles",
      'title.empty() ? "" : «"<title>" + escaped(title) + "</title>"»);',
      "std::string()")
fault("tool-116", "all series have one marker",
      "kMarkers[«(series + series / std::size(kColours)) % std::size(kMarkers)»];",
      "0")
fault("tool-117", "all series have one colour",
      "return kColours[«series % std::size(kColours)»];",
      "0")
fault("tool-118", "an axis of one mark",
      "if («axis.marks.size() >= 3») return axis;",
      "true")
fault("tool-119", "points have no numbers",
      "if («!label.empty()» && occupied.take(",
      "false")
fault("tool-120", "every point is a series",
      "const std::string family = «rule_family(point.rule)»;",
      "point.rule")
fault("tool-121", "what does not differ is drawn",
      "if («!(value(point) > 0)») continue;",
      "false", tests="cli_test:Cli.ASweepThatLosesNothingCanBeDrawn")
fault("tool-122", "a title names the rule without its numbers",
      'perplexity {:.3f}, KL {:.4f}", point.rule',
      'perplexity {:.3f}, KL {:.4f}", MUT ? rule_family(point.rule) : point.rule')

source("examples/paddock/command_line.cpp", "cli_test:CliTrouble.WrongUsageNamesTheCommandsOwnHelp")
fault("tool-081", "a file named -",
      'if («value != "-"») return "";',
      "true", tests=REPORT + "DashIsRefused*")
fault("tool-086", "empty values are taken",
      'return «value.empty()» ? "must not be empty" : ""; }, "");',
      "false", tests="cli_test:CliTrouble.EmptyValuesAreRefused")
fault("tool-123", "wrong usage names the help of all commands",
      'const std::string command = «commands.empty()» ? ""',
      "true")
fault("tool-124", "what is no number is to be a whole one",
      'type = «option->get_type_name().starts_with("FLOAT")» ? "a number"',
      "false", tests="cli_test:CliTrouble.ValuesThatAreNone*")

source("examples/paddock/main.cpp", "cli_test:CliTrouble.WrongUsageNamesTheCommandsOwnHelp")
fault("tool-125", "an interrupted command: exit code 0",
      "return «cli::InterruptGuard::interrupted()» ? 130 : exit_code;",
      "false", tests="cli_test:CliTrouble.InterruptsAre*")

source("examples/paddock/parallel.cpp", "cli_test:CliParallel.*")
fault("tool-130", "a key that nobody knows is lost without a word",
      "«line.check_done();»",
      "")
fault("tool-131", "a request that was refused is no failure",
      "all_good = «print_answer(answer.ask, asked, answer.handle, *engine, falls, lacks) && all_good»;",
      "print_answer(answer.ask, asked, answer.handle, *engine, falls, lacks) || all_good")
fault("tool-192", "a rule that is refused is no line's",
      "if («!text.starts_with(name)») continue;", "true")
fault("tool-193", "nothing is said of answers without room",
      "if («!lack.empty() && answers++ == 0») first = lack;", "false")
fault("tool-132", "all answers of a line have its seed",
      "options.sampling.seed + «static_cast<uint64_t>(handle.index())»;",
      "0")
fault("tool-133", "all lines have the command's seed",
      "«o.sampling.seed += before;»",
      "")
fault("tool-134", "blank lines count",
      "if («text.find_first_not_of(\" \\t\\r\") == std::string::npos») continue;",
      "false")
fault("tool-135", "errors name the request, not the line",
      "read_ask(Line(job.file, «number», text)",
      "static_cast<int64_t>(asks.size()) + 1")
fault("tool-136", "one at a time",
      "std::min<int64_t>(«job.sequences», left)",
      "1")
fault("tool-137", "log-probabilities of one line are not printed",
      "answer_json(result, seed, «options.logprobs.has_value()»)",
      "false")
fault("tool-138", "a prompt and ids at once: the ids win",
      "if («text.is_null() == ids.is_null()») line.refuse",
      "text.is_null() && ids.is_null()")
fault("tool-139", "a single answer has a number, too",
      "if («options.n > 1») out[\"answer\"]",
      "true")

source("examples/paddock/command_line.cpp", "cli_test:CliTrouble.AnEmpty*")
fault("tool-160", "an empty argument that is no value is left to the parser",
      "«refuse_empty_arguments(*app_, argc, argv);»",
      "")
fault("tool-161", "an empty value of an option is refused as no option's",
      "is_value = option != nullptr && «option->get_items_expected_max() > 0»;",
      "false")

# ---- rules without a budget
source("examples/paddock/kv_report.cpp", "cli_test:CliElastic.*")
fault("tool-162", 'the file has no budget changes',
      '«write_changes(event.number);»',
      '')
fault("tool-163", 'a change stands behind what it removed',
      'if («change.first_event > number») break;',
      'change.first_event >= number')
fault("tool-164", 'a change is written again and again',
      '«next_change_ = change.number + 1;»',
      '')
fault("tool-165", 'changes that no removal followed are lost',
      '«write_changes(UINT64_MAX);»',
      '')
fault("tool-166", 'the rows have after and before swapped',
      'budget(«c.before»), budget(c.after), c.pages',
      'c.after')
fault("tool-167", 'rows of budgets where there are none',
      'if («changes.empty()») return text;',
      'false')
fault("tool-168", 'no budget is a number',
      'return «positions == paddock::kUnlimited» ? "-"',
      'false')
source("examples/paddock/kv_notes.cpp", "cli_test:CliElastic.*")
fault("tool-169", 'every first fall is one more',
      '«has_lost_ = true;»',
      '')
fault("tool-170", 'what was said of budgets is said again',
      '«next_change_ = change.number + 1;» if (change.after',
      '')
fault("tool-171", 'nothing is said of budgets',
      '«text += budgets;»',
      '')
fault("tool-172", 'a larger pool is proposed with full for rules that need none',
      'if («!keeps_all») whole.policy',
      'true')
fault("tool-173", 'fixed rules are taken for elastic ones',
      'if («!policy->is_elastic()») return 0;',
      'false')
fault("tool-174", 'a lift is told as a fall',
      'if («change.after == paddock::kUnlimited») { text',
      'false')
source("examples/paddock/answer_json.cpp", "cli_test:CliParallel.*")
fault("tool-194", 'answers do not tell who took their pages',
      'if («!result.preempted.empty()») out',
      'false')
fault("tool-195", 'who has no token has waited no time for it',
      '«has_token» ? Json(t.first_token_seconds)',
      'true')
source("examples/paddock/kv_report.cpp", "cli_test:CliParallel.*")
fault("tool-196", 'a preemption is written again and again',
      '«next_preemption_ = preemption.number + 1;»',
      '')
source("examples/paddock/answer_json.cpp", "cli_test:CliElastic.*")
fault("tool-175", 'answers do not tell what they gave up',
      'if («!result.budget_changes.empty()») out',
      'false')
source("examples/paddock/parallel.cpp", "cli_test:CliElastic.*")
fault("tool-176", 'the least budget is the largest',
      'least = «std::min(least, change.after)»;',
      'std::max(least == paddock::kUnlimited ? 0 : least, change.after)')
fault("tool-177", 'every answer has given something up',
      'answers += «n > 0 ? 1 : 0»;',
      'n > 0 ? 2 : 0')
fault("tool-178", 'falls of one answer count once',
      'changes += «n»;',
      'n > 0 ? 1 : 0')

source("examples/paddock/keep.cpp", "cli_test:CliChat.*:AttentionMeter.*")
fault("tool-179", "one turn may be all that stays",
      'last != end || «rule.turns < 2»',
      'rule.turns < 1')
fault("tool-180", "what follows the number is not looked at",
      'error != std::errc() || «last != end» || rule',
      'false')
fault("tool-181", "attention from before the turn counts",
      'const double given = «block.mass - (known == before_.end() ? 0 : known->second)»;',
      'block.mass')
fault("tool-182", "a block is all of the turn that it begins in",
      'std::upper_bound(starts.begin(), starts.end(), «block.first_position + i»)',
      'block.first_position')

source("examples/paddock/conversation.cpp", "cli_test:CliChat.*:AttentionMeter.*")
fault("tool-183", "the first turn leaves first",
      'if («!places.empty() && places.front() == 0») places.erase',
      'false')
fault("tool-185", "the conversation is not read again",
      'said_ = std::move(shorter); «catch_up();» left.seconds',
      '', tests="advice_test:Turns.*")
fault("tool-186", "the summary is an answer",
      '«generate_.on_token = {};»',
      '')
fault("tool-187", "the question for a summary stays a turn",
      'said_.restore_turns(before); «next_number_ = number;»',
      '')
fault("tool-188", "the only turn may leave",
      'if («said_.turns().size() == 1») {',
      'false')

source("examples/paddock/transcript.cpp", "advice_test:Turns.* cli_test:CliChat.*")
fault("tool-005", "the system message is lost",
      "if («!system.empty()») messages",
      "false")
fault("tool-009", "a /retry keeps the turn whose answer it replaces",
      "while (!turns_.empty() && «turns_.back().start >= to») turns_.pop_back();",
      "false")
fault("tool-016", "a turn's first position is the turn before's",
      "{ return «at < turn.start»; })",
      "at <= turn.start")
fault("tool-184", "a turn that stays is read without what it was given",
      '«tokens_.insert(tokens_.end(), answer.tokens.begin(), answer.tokens.end());»',
      '')
