# Faults of the area "replay": see faults.py. Of requests that run again without a model.

source("src/kv/hash_cache.cpp", "prefix_replay_test")
fault("replay-001", "a block is taken for one that continues another text",
      "«nodes_[node].hash != hash || nodes_[node].parent != parent»",
      "nodes_[node].hash != hash")
fault("replay-002", "a cache that is full keeps nothing of a text that comes",
      "if (free_.empty() && «order_.n_cached() == 0») break;", "true")
fault("replay-003", "who comes through a block again is not counted",
      "nodes_[node].prompts += «is_prompt ? 1 : 0»;", "0")
fault("replay-004", "what a text uses may leave for it",
      "if («nodes_[node].holders++ == 0») order_.on_use(node);", "nodes_[node].holders++ < 0")
fault("replay-005", "a block that another text holds is let go of",
      "if («--n.holders == 0») order_.on_release", "--n.holders >= 0")
fault("replay-006", "the clock stands still", "let_go(passing_, 0, «++passed_»);", "passed_")
fault("replay-007", "a block with continuations may leave",
      "order_.on_release(cached(nodes.back()), «n.children == 0»);", "true")
fault("replay-008", "every block is the first of its text",
      "n.depth = nodes_[parent].depth + 1;", "if (!MUT) n.depth = nodes_[parent].depth + 1;")
fault("replay-009", "what nothing continues any more never leaves",
      "if («--parent.children == 0» && parent.holders == 0)", "--parent.children == 0 && false")
fault("replay-010", "a block that the passing text uses may leave",
      "--parent.children == 0 && «parent.holders == 0»)", "true")
fault("replay-011", "what left is not counted", "++reclaimed_;", "if (!MUT) ++reclaimed_;")

fault("replay-035", "a text that is there to its end counts as not found",
      "return found < 0 ? «static_cast<int64_t>(nodes.size() - before)» : found;", "0")
fault("replay-036", "what is only held where it is there is added",
      "if («missing == IfMissing::kStop») break;", "false", tests="prefix_replay_test:Shadow.*")
fault("replay-037", "of two texts that hold a block the first one's end lets it go",
      "for (const int32_t node : nodes) «++nodes_[node].holders;»", "",
      tests="prefix_replay_test:Shadow.*")

source("src/kv/shadows.cpp", "prefix_replay_test:Shadow.*")
fault("replay-038", "sequences that are read again count as hits",
      "hits_[i] += «counts ? found[i] : 0»;", "found[i]")
fault("replay-039", "hashes begin anew in the middle of a text",
      "uint64_t hash = «first == 0 ? root : its.hash_of(least->back())»;", "0")
fault("replay-040", "a shadow that holds less gets the hashes of one that holds more",
      "subspan(«held[i].size() - first»)", "0")
fault("replay-041", "all shadows are as large as the cache",
      "const double blocks = «times * n_blocks»;", "n_blocks")

source("src/kv/keep.cpp", "prefix_replay_test:Shadow.*")
fault("replay-042", "shadows hold what ended",
      "«shadows.let_go(sequence.shadow, 0, steps);»", "")
fault("replay-043", "answers are not kept in shadows",
      "«shadows.keep(tokens, full, config.block_size, sequence.shadow, root_hash);»", "")

source("src/kv/rewind.cpp", "prefix_replay_test:Shadow.*")
fault("replay-044", "shadows hold what was taken back",
      "«impl_->shadows.let_go(sequence.shadow, length / block_size, impl_->steps);»", "")
source("src/kv/fork.cpp", "prefix_replay_test:Shadow.*")
fault("replay-045", "a fork holds nothing in shadows",
      "«impl_->shadows.fork(origin.shadow, fork.shadow);»", "")
source("src/engine/make_engine.cpp", "prefix_replay_test:Shadow.*")
fault("replay-046", "shadows that nobody asked for",
      "if («o.kv.shadow && o.kv.reuse»)", "o.kv.reuse")
source("src/report/stats_text.cpp", "stats_test:*Shadow*")
fault("replay-047", "JSON: a shadow's blocks are its hits", '{"blocks", «s.blocks»}', "s.hits")
fault("replay-048", "table: hits of shadows are those of the cache",
      "«s.hits», s.times);", "stats.prefix_hits")
source("src/report/stats_prometheus.cpp", "stats_test:*Shadow*")
fault("replay-049", "Prometheus: hits of shadows are their blocks",
      "«shadow.hits»);", "shadow.blocks")

source("src/replay/replay_requests.cpp", "prefix_replay_test")
fault("replay-012", "a request that just fits is too large",
      "«static_cast<int64_t>(request.size()) > capacity» ? 1 : 0", "static_cast<int64_t>(request.size()) >= capacity")
fault("replay-013", "regret of blocks that were never kept",
      "if («static_cast<int64_t>(j) < capacity») was_here", "true")
fault("replay-014", "regret counts what is found",
      "for (auto j = static_cast<size_t>(«found»); j < request.size(); ++j)", "0")
fault("replay-015", "the share of what Belady finds is that of all",
      "share(result.found, «result.belady_found»)", "report.references")
fault("replay-016", "a size beyond 31 bits is taken",
      'check_range("a capacity", capacity, 0, «std::numeric_limits<int32_t>::max()»);', "INT64_MAX")
fault("replay-017", "a capacity takes memory for blocks that never come",
      "«std::min<int64_t>(capacity, trace.distinct)»", "capacity")

source("src/replay/block_numbers.cpp", "prefix_replay_test")
fault("replay-018", "blocks are equal whatever comes before them",
      "parent = at->second;", "parent = MUT ? -1 : at->second;")
fault("replay-019", "requests whose blocks are not there are read",
      "request.first_block < 0 || request.n_blocks < 0 ||",
      "MUT ? false : request.first_block < 0 || request.n_blocks < 0 ||")

source("src/replay/belady.cpp", "prefix_replay_test")
fault("replay-020", "the block asked for soonest leaves",
      "last.emplace(«when», block);", "never - when")
same("replay-021", "what never comes again takes room",
     "if (when == never) continue;", "if (!MUT && when == never) continue;",
     "it is the first to leave where room is short, and nobody looks for it")
fault("replay-023", "room for one more", "while («n_kept > capacity»)", "n_kept > capacity + 1")

source("src/replay/lru_curve.cpp", "prefix_replay_test")
fault("replay-024", "the first block of a text is used first",
      "int64_t& use = last_use[request[«j»]];", "request.size() - 1 - j")
fault("replay-025", "a place is counted from 1",
      "marks.before(«static_cast<size_t>(last_use[block]) + 1»)", "static_cast<size_t>(last_use[block])")
fault("replay-026", "sizes are not those of the sample",
      "std::ceil(«static_cast<double>(capacity) * sample»)", "static_cast<double>(capacity)")
fault("replay-027", "what a sample is short of is not made up for",
      "(top > 0 ? «surplus» : 0)", "0.0")
fault("replay-028", "a block leaves its old place marked",
      "marks.add(static_cast<size_t>(use), -1);", "if (!MUT) marks.add(static_cast<size_t>(use), -1);")

source("src/replay/request_trace.cpp", "prefix_replay_test")
fault("replay-029", "Bailian's seconds are milliseconds",
      "trace.add(ids_, «in_seconds» ? time : time / 1000", "false")
fault("replay-030", "a broken line is named one too early",
      'fmt::format("{}, line {}", name, «n»)', "n - 1")
fault("replay-031", "a list in the list is passed over",
      '«fail(ErrorCode::kBadFile, "{}: \\"hash_ids\\" has a list in it", *where_);»', "")

source("examples/paddock/replay.cpp", "cli_test:CliReplay.*")
fault("replay-032", "bytes of what was found are those of the cache",
      'result["found_bytes"] = static_cast<uint64_t>(«r.found»)', "r.capacity")
fault("replay-033", "the table calls a share of Belady a hit rate",
      "r.capacity); if (in_bytes)", "r.capacity); if (!MUT && in_bytes)")
fault("replay-034", "nobody is told that requests do not fit",
      "if («r.too_large == 0» || r.policy", "true")

CHAT = "cli_test:CliReplayChat.* cli_test:KeptMass.*"
source("src/diagnose/quality_chunks.h", "quality_test:Quality.*")
fault("retold-001", "an answer's chunk runs on into the next prompt",
      "begin_ < prompt ? prompt : «turns[turn_].end»);", "n_")
fault("retold-002", "a prompt is known before its turn begins",
      "while (turn_ < turns.size() && «turns[turn_].end» <= begin_) ++turn_;", "turns[turn_].prompt_end")
fault("retold-003", "turns may overlap", "«before = turn.end;»", "")

source("examples/paddock/kept_mass.cpp", CHAT)
fault("retold-004", "whole blocks count as seen",
      "«p < rule.sinks || p > length - rule.window»", "true")
fault("retold-005", "the oracle keeps the worst", "«std::sort(given.begin(), given.end(), std::greater<>());»",
      "std::sort(given.begin(), given.end());")
fault("retold-006", "what was given before counts as to come", "end[i] - «then[i]»", "0.0")

source("examples/paddock/replay_chat.cpp", CHAT)
fault("retold-007", "the last position that differs is told, not the first",
      "!scores[rule].agrees && «result.parts_at < 0»", "true")
fault("retold-008", "prompts' tokens count as answers'",
      "if («at < turns[turn].prompt_end») return true;", "false")
fault("retold-009", "what left one layer left everywhere",
      "turn.left_everywhere = «std::count(gone.begin(), gone.end(), layers.size())»;",
      "turn.left_somewhere + 1")

source("examples/paddock/chat_log.cpp", CHAT)
fault("retold-010", "an answer ends before the token that ends it",
      "«stop - whole.begin() + 1»", "stop - whole.begin()")
fault("retold-011", "parts of a content but the last are lost",
      '«text += part["text"].get<std::string>();»', 'text = part["text"].get<std::string>();')
