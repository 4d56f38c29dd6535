# Faults of the area "replay": see faults.py. Of requests that run again without a model.

source("src/kv/hash_cache.cpp", "prefix_replay_test")
fault("replay-001", "a block is taken for one that continues another text",
      "nodes_[node].hash != hash «|| nodes_[node].parent != parent»",
      "|| (!MUT && nodes_[node].parent != parent)")
fault("replay-002", "of a text larger than the cache nothing stays",
      "text = «text.first(std::min(text.size(), nodes_.size()))»;",
      "text.first(text.size() > nodes_.size() ? 0 : text.size())")
fault("replay-003", "who comes through a block again is not counted",
      "++nodes_[node].prompts;", "if (!MUT) ++nodes_[node].prompts;")
fault("replay-004", "what a text uses may leave for it",
      "order_.on_use(node); }", "if (!MUT) order_.on_use(node); }")
fault("replay-005", "shallow blocks are let go of first",
      "Node& n = nodes_[passing_[«i»]]; n.in_use = false; n.last_use = texts_; "
      "order_.on_release(cached(passing_[«i»]), n.children == 0);",
      "MUT ? passing_.size() - 1 - i : i")
fault("replay-006", "the clock stands still",
      "n.last_use = «texts_»;", "0")
fault("replay-007", "a block with continuations may leave",
      "n.children == 0);", "MUT || n.children == 0);")
fault("replay-008", "every block is the first of its text",
      "n.depth = nodes_[parent].depth + 1;", "if (!MUT) n.depth = nodes_[parent].depth + 1;")
fault("replay-009", "what nothing continues any more never leaves",
      "if («--parent.children == 0» && !parent.in_use)", "--parent.children == 0 && false")
fault("replay-010", "a block that the passing text uses may leave",
      "--parent.children == 0 «&& !parent.in_use»", "&& (MUT || !parent.in_use)")
fault("replay-011", "what left is not counted", "++reclaimed_;", "if (!MUT) ++reclaimed_;")

source("src/replay/replay_requests.cpp", "prefix_replay_test")
fault("replay-012", "a request that just fits is too large",
      "static_cast<int64_t>(request.size()) «>» capacity", ">=")
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
fault("replay-021", "what never comes again takes room",
      "if (when == never) continue;", "if (!MUT && when == never) continue;")
fault("replay-022", "an entry that is no longer true takes a block away",
      "if (kept[block] != when) continue;", "if (!MUT && kept[block] != when) continue;")
fault("replay-023", "room for one more", "while (n_kept «>» capacity)", "> 1 +")

source("src/replay/lru_curve.cpp", "prefix_replay_test")
fault("replay-024", "the first block of a text is used first",
      "int64_t& use = last_use[request[«j»]];", "request.size() - 1 - j")
fault("replay-025", "a place is counted from 1",
      "marks.before(static_cast<size_t>(last_use[block]) «+ 1»)", "+ 0")
fault("replay-026", "sizes are not those of the sample",
      "static_cast<double>(capacity) «* sample»", "* 1")
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
