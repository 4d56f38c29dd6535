# Faults of the area "templates": see faults.py.

KNOWN = "chat_test:Chat.* chat_test:ChatMutants.*"
TURNS = "chat_test:Chat.* chat_test:ChatTurns.*"

source("src/text/chat_format.cpp", KNOWN)
fault("templates-001", "templates are asked about two messages, not three",
      "all[i].size() < «3»; ++i) {",
      "2")
fault("templates-002", "templates are asked about users' messages alone",
      "for (const std::string_view role : kRoles) {",
      'for (const std::string_view role : kRoles) { if (MUT && role != "user") continue;')
fault("templates-003", "a template that needs no message is known as one that does",
      "if («messages.empty() && form.needs_message») return std::nullopt;",
      "messages.empty()")
fault("templates-004", "templates are not asked with a date",
      "std::optional<std::string>(), «given»}",
      "std::optional<std::string>()")
fault("templates-005", "templates are not asked for the prompt of an answer",
      "for (const bool prompt : {false, «true»}) {",
      "false")
fault("templates-006", "a template may hold the marks of the question",
      r"if («jinja.find('\x01') != std::string_view::npos») return std::nullopt;",
      "false")
fault("templates-007", "a template that always prompts is not known",
      "for (const bool always_prompts : {false, «true»}) {",
      "false")
fault("templates-008", "Llama templates without BOS are not known",
      "if («bos != format.bos && format.family != Family::kLlama3») continue;",
      "bos != format.bos")
fault("templates-009", "Llama 3.2 has the date of 3.1",
      'format.date == ChatFormat::Date::kToday ? «traced_clock("%d %b %Y")» : kFixedDate',
      "std::string(kFixedDate)")
fault("templates-010", "no line end after a turn of ChatML",
      r'after_end_of_turn() { if (is_chatml()) «text("\n");» }',
      "")
fault("templates-011", "contents of Llama's messages keep their blanks",
      "return «is_chatml() ? text : trim_spaces(text)»;",
      "text")
fault("templates-012", "the byte of wrong UTF-8 is counted from the header",
      'content", which, «bad»);',
      "bad + message.role.size()")
fault("templates-013", "messages are counted from 0",
      "message(messages[next], «next + 1»);",
      "next")
fault("templates-014", "a system message is not looked at where the format has a date",
      "«check(messages[0], 1);»",
      "")
fault("templates-015", "wrong UTF-8 is the tokenizer's to find",
      "const size_t bad = «find_invalid_utf8(message.content)»;",
      "std::string_view::npos")
fault("templates-016", "any role is taken",
      'if («message.role != "system" && message.role != "user" && message.role != "assistant"») {',
      "message.role.empty()")
fault("templates-017", "no system message where the format has its own",
      "else if («!format.default_system.empty() && !messages.empty() && !system_first») {",
      "false")
fault("templates-018", "the format's own system message beside another",
      "!messages.empty() && «!system_first») {",
      "true")
fault("templates-019", "the format's own system message in front of nothing",
      "default_system.empty() && «!messages.empty()» && !system_first",
      "true")
fault("templates-020", "BOS in front of nothing",
      "(form_.bos == Bos::kWithMessages && «!messages.empty()»)",
      "true")
fault("templates-021", "a template that always prompts is asked to",
      "if («prompt || form_.always_prompts») generation_prompt();",
      "prompt")
fault("templates-022", "no messages where one is needed",
      "if («messages.empty() && form_.needs_message») { fail",
      "false")

source("src/text/chat_template.cpp", TURNS)
fault("templates-023", "next_turn: another stop token than the turn's end stays",
      "«(answer.stop_token ? 1 : 0)»;",
      "0")
fault("templates-024", "next_turn: any stop token ends a turn",
      "if («whole && answer.stop_token == end_of_turn()») {",
      "whole && answer.stop_token")
fault("templates-025", "next_turn: an answer ends inside of a character",
      "if («bytes == content.size() || (content[bytes] & 0xC0) != 0x80») kept",
      "true")
fault("templates-026", "next_turn: what no token spells is lost",
      "«script.text(content.substr(kept.bytes));»",
      "")
fault("templates-027", "next_turn: tokens beyond the text stay",
      "«static_cast<int64_t>(answer.tokens.size() - kept.tokens)» +",
      "int64_t{0}")
fault("templates-028", "next_turn: the turn is not ended",
      "script.text(content.substr(kept.bytes)); «script.end_of_turn();»",
      "")
fault("templates-029", "next_turn: what follows a turn's end is left out",
      "«script.after_end_of_turn();» } else {",
      "")
fault("templates-030", "next_turn: the answer's blanks stay",
      "const std::string_view content = «script.content(answer.text)»;",
      "std::string_view(answer.text)")
fault("templates-031", "BOS that a template leaves to the tokenizer is forgotten",
      "if («impl_->bos && impl_->form.bos == ChatFormat::Bos::kNever && impl_->tokenizer->adds_bos()») {",
      "false")
fault("templates-032", "messages may forge turns",
      "const auto text = «tokenizer->encode(piece.text)»;",
      "tokenizer->encode(piece.text, {.add_bos = false, .parse_special = true})")
fault("templates-033", "a template's tokens are missed only when they are needed",
      "for (const std::string_view text : special_tokens_of(format)) «impl_->special(text);»",
      "")

source("src/text/template_lexer.cpp", KNOWN)
fault("templates-034", "-%} swallows nothing",
      "strip_ = «sign == '-'»;",
      "false")
fault("templates-035", "the line end after a tag stays",
      r"if («swallows_line_end && sign != '-' && sign != '+' && rest_.starts_with('\n')») {",
      "false")
fault("templates-036", "+%} swallows the line end",
      "sign != '-' && «sign != '+'» && rest_.starts_with",
      "true")
fault("templates-037", "the line end after {{ }} goes",
      r"if («swallows_line_end» && sign != '-' &&",
      "true")
fault("templates-038", "the line end after a comment stays",
      "tag_ended(sign, «true»);",
      "false")
fault("templates-039", "the template's last line end stays",
      r"if («source_.ends_with('\n')») source_.pop_back();",
      "false")
fault("templates-040", "line ends of Windows are two",
      r"if («i + 1 < jinja.size() && jinja[i + 1] == '\n'») ++i;",
      "false")
fault("templates-041", "blanks before a tag stay",
      "if (sign == '-' || «(sign != '+' && rest_[next + 1] != '{' && line_begins)») {",
      "false")
fault("templates-042", "{%+ swallows the blanks before it",
      "(«sign != '+'» && rest_[next + 1] != '{' && line_begins)",
      "true")
fault("templates-043", "blanks before {{ go",
      "(sign != '+' && «rest_[next + 1] != '{'» && line_begins)",
      "true")
fault("templates-044", "blanks before a tag go inside of a line, too",
      "rest_[next + 1] != '{' && «line_begins»)) {",
      "true")

source("src/text/template_expressions.cpp", KNOWN)
fault("templates-045", "not in: in",
      "«negated = true;»",
      "")
fault("templates-046", "a == b == c compares the first comparison",
      "if («n > 1») left.kind = Kind::kOther;",
      "false")
fault("templates-049", "is not: is",
      "if («negated») value = wrap(Kind::kNot, std::move(value));",
      "false")
fault("templates-050", "minus joins",
      "pair(«plus» ? Kind::kJoin : Kind::kOther,",
      "true")
fault("templates-051", "filters that Jinja lacks",
      "if («!is_one_of(value.text, kFilters)») throw",
      "false")

source("src/text/template_syntax.cpp", KNOWN)
fault("templates-047", "a loop's filter is ignored",
      'if (accept(T::kName, "if")) { expression(); «node.text.clear();» }',
      "")
fault("templates-048", "a member that is set is a name",
      'if (accept(T::kSymbol, ".")) { name(); «node.text.clear();» }',
      "")

source("src/text/template_trace.cpp", KNOWN)
fault("templates-052", "what a round of a loop sets stays",
      "«names_ = before;»",
      "")
fault("templates-053", "every round is the first",
      "names_[\"loop\"] = {Kind::kLoop, «static_cast<int64_t>(i) == over.number»};",
      "true")
fault("templates-054", "a filter with arguments is trim",
      'if (e.text != "trim" || «e.parts.size() != 1») throw',
      "false")
fault("templates-055", "any filter is trim",
      'if («e.text != "trim"» || e.parts.size() != 1) throw',
      "false")
fault("templates-056", "messages[1:] and any other tail",
      "|| «from.number != 1») {",
      "false")
fault("templates-057", "messages[0] and any other",
      "which.kind != Kind::kInteger || «which.number != 0») {",
      "false")
fault("templates-058", "a text with a message's content may be compared",
      "if («left.kind != Kind::kText || right.kind != Kind::kText») left.kind = Kind::kOpaque;",
      "false")
fault("templates-059", "a member of nothing is no error",
      "if («of.kind == Kind::kUndefined») throw Raised();",
      "false")
fault("templates-060", "!=: ==",
      'return boolean(equal(left, right) == «(op == "==")»);',
      "true")
fault("templates-061", "loop.index0 counts from 1",
      'if (name == "index0") return {Kind::kRound, of.number, «"0"»};',
      '"1"')
fault("templates-062", "and, or: both sides are asked",
      "truth(left) == «(e.kind == Expression::Kind::kAnd)»;",
      "true")
fault("templates-063", "strip() is not trim",
      'what.text == "strip" && «arguments.parts.empty()») {',
      "false")
fault("templates-064", "strip('x') is trim",
      'what.text == "strip" && «arguments.parts.empty()») {',
      "true")

TOKENS = "tokenizer_test model_settings_test"
source("src/text/tokenizer_json.cpp", TOKENS)
fault("templates-065", "normalized: false unless said",
      'flag(token, "normalized", «!special»)',
      "false")
fault("templates-066", "special: true unless said",
      'flag(token, "special", «false»)',
      "true")
fault("templates-067", "tokenizer_config.json's options do not count",
      "add_token(id, «*other->second», vocabulary);",
      "token")
fault("templates-068", "tokens of tokenizer_config.json alone are not added",
      "for (const auto& [id, token] : configured) «add_token(id, *token, vocabulary);»",
      "", tests="field_reports_test:FieldReports.AddedTokensMayStandInTheConfigurationAlone")
fault("templates-069", "another text for an added token's id",
      'if («text(*other->second, "content") != text(token, "content")») {',
      "false")
fault("templates-070", "a token of both files is added twice",
      "«configured.erase(other);»",
      "")
fault("templates-071", "lstrip and its like are ignored",
      "if («flag(token, option, false)») {",
      "false", tests="tokenizer_test tokenizer_hostile_test")
fault("templates-072", "an entry's spelling may have a second id",
      "if («other && *other != token.id») {",
      "false")
fault("templates-073", "an entry's own id is refused as a second one",
      "if (other && «*other != token.id») {",
      "true")
fault("templates-074", "an added token of an entry's bytes is refused",
      "for (const Vocabulary::Added& token : vocabulary.added(true)) { const auto bytes = "
      "«bytes_from_alphabet(token.text)»;",
      "std::optional<std::string>(token.text)")
fault("templates-075", "a token after a text is one before it",
      "if («after») { log(",
      "false")
fault("templates-076", "BOS is the post-processor's alone",
      'if (!source.bos) «source.bos = source.vocabulary.find_added("<|begin_of_text|>");»',
      "")
fault("templates-077", "the post-processor's token is not added",
      "«source.adds_bos = true;»",
      "")

source("src/text/special_matcher.cpp", TOKENS)
fault("templates-078", "normalized: false tokens are not cut first",
      "kMaxTokenBytes - token.text.size() : «token.late»;",
      "false")
fault("templates-079", "normalized: false tokens are cut last",
      "kMaxTokenBytes - token.text.size() : «token.late»;",
      "!token.late")
fault("templates-080", "GGUF: the leftmost added token is cut first",
      "order == CutOrder::kLongestFirst ? «kMaxTokenBytes - token.text.size()» :",
      "size_t{0}")
fault("templates-081", "the shortest of added tokens that begin together",
      "if («low->text.size() == depth + 1») longest",
      "!longest && low->text.size() == depth + 1")
fault("templates-082", "special tokens are cut out of every text",
      "vocabulary.added(«specials»)",
      "true")

source("src/text/vocabulary.cpp", TOKENS)
fault("templates-083", "tokens of turns are special only where the file says so",
      "«kind = TokenKind::kSpecial;»",
      "")
fault("templates-084", "an added token that is spelled as an entry replaces it",
      "if («place.kind == TokenKind::kNormal && e.place.kind == TokenKind::kUserDefined») {",
      "false")
fault("templates-085", "an added token that is spelled as an entry is not cut out",
      "«all.push_back({std::string_view(arena_).substr(p.begin, p.length), e.id, p.late});»",
      "")
fault("templates-086", "an added token's id may be that of an entry of another text",
      "if («text(place) != bytes_from_alphabet(text(e.place))») {",
      "false", tests="tokenizer_test model_settings_test tokenizer_hostile_test")
fault("templates-087", "a text gives the entry, not the added token",
      "if (const auto id = «find_added(text)») return id;",
      "find_normal(text)")
fault("templates-088", "an id may be given twice",
      "if («!e.change || entries_[i - 1].change») {",
      "false", tests="tokenizer_test tokenizer_hostile_test")

source("src/text/gguf_tokenizer.cpp", "model_settings_test tokenizer_test")
fault("templates-089", "GGUF: tokens are cut out as those of tokenizer.json",
      "«source.cut_order = CutOrder::kLongestFirst;»",
      "")
fault("templates-090", "GGUF: BOS is added only where the file says so",
      '.value_or(«*pre_tokenizer == PreTokenizer::kLlama3»);',
      "false")
fault("templates-091", "GGUF: a BOS id outside the vocabulary is none",
      "if («!vocabulary.contains(*id)») {",
      "false")
fault("templates-092", "GGUF: eom_token_id does not stop",
      '"tokenizer.ggml.eot_token_id", «"tokenizer.ggml.eom_token_id"»}',
      '"tokenizer.ggml.eot_token_id"')
fault("templates-093", "GGUF: add_eos_token is not said to be ignored",
      'if («file.get_bool("tokenizer.ggml.add_eos_token").value_or(false)») {',
      "false")
fault("templates-094", "GGUF: add_space_prefix is ignored",
      'if («file.get_bool("tokenizer.ggml.add_space_prefix").value_or(false)») {',
      "false")
fault("templates-095", "GGUF: -1 is outside the vocabulary",
      "if (!id || «*id == -1 || *id == UINT32_MAX») return",
      "false", tests="field_reports_test:FieldReports.MinusOneIsNoToken tokenizer_test")
