# Faults of the area "own_rules", sequences that go by rules of their own: see faults.py.

source("src/kv/cache_rules.cpp", "cache_test stats_test conformance_test policy_test:PolicyGolden.V*")
fault("kv-027", "set_policies(): kept blocks survive the change",
      "while («tree.evictable() > 0») { reclaim_block(tree.next(), RemovalReason::kUser",
      "false")
fault("kv-107", "rules change while a sequence is open",
      "if («impl_->live + impl_->pinned > 0») {",
      "false")
fault("kv-224", "policies are let go of under the lock",
      "«rule_sets.swap(next);»",
      "rule_sets = std::move(next);")

source("src/kv/cache_rules.cpp", "own_rules_test eviction_test:Schedules.SequencesUnder*")
fault("rules-001", "whether queries turn does not count for what is shared",
      "|| «!same_rotations(one, other)») {",
      "false")
fault("rules-002", "windows of all widths share blocks",
      "«one.visibility.window != other.visibility.window» ||",
      "false")
fault("rules-003", "all rules share blocks with all",
      "«rules.root = alike == all.begin() + static_cast<int64_t>(i) ? roots++ : alike->root;»",
      "rules.root = 0;")
fault("rules-004", "key norms are measured for their own rule alone",
      "if («!is_own && !(rules.shares_blocks && other.shares_blocks && rules.root == other.root)») continue;",
      "!is_own")
fault("rules-005", "a block is cut although others go by its key norms",
      "rules.keeps_norms |= «rule.is_elastic»;",
      "rule.is_elastic && is_own")
fault("rules-006", "tables have room for the engine's own rules",
      "for (const RuleSet& rules : next) { const LayerRule& rule = rules.layer(layer);",
      "for (const RuleSet& rules : next) { if (MUT && &rules != &next[0]) break; "
      "const LayerRule& rule = rules.layer(layer);")

source("src/kv/cache_manager.cpp", "own_rules_test")
fault("rules-007", "a sequence begins with the engine's own budgets",
      "sequence.layers[layer].clear(«rules.layer(layer)»);",
      "rule_sets[0].layer(layer)")
fault("rules-008", "all are as long as the engine's own rules admit",
      "|| sequence.length + n > «sequence.rules->max_positions») {",
      "impl_->rules(0).max_positions")
fault("rules-009", "key norms are asked for where the sequence's own rule needs them",
      ".key_norms = «sequence.rules->norms[layer] != 0»};",
      "sequence.rule(layer).needs.key_norms")

source("src/kv/cache_stats.cpp", "own_rules_test")
fault("rules-010", "removals name the engine's own rule",
      "event.rule = «sequence.rules->names[layer]»;",
      "rule_sets[0].names[layer]")

source("src/kv/reuse.cpp", "own_rules_test")
fault("rules-012", "one waits for blocks of a text that sees otherwise",
      "return sequence.rules->shares_blocks && other.shares_blocks && «sequence.rules->root == other.root» &&",
      "true")
fault("rules-013", "pins are of the engine's own rules",
      "impl_->begin(all[id], nullptr, «rules»);",
      "impl_->rules(0)")

fault("rules-031", "shadows find what was kept for texts that are seen otherwise",
      "const uint64_t root = PrefixTree::hash_of_root(«PrefixTree::root(sequence.rules->root)»);",
      "PrefixTree::kRoot")

source("src/kv/reclaim.cpp", "own_rules_test")
fault("rules-011", "what is reclaimed names the engine's own rule",
      "return «rules.shares_blocks && rules.root == root»;",
      "true")

source("src/kv/prefix_tree.cpp", "own_rules_test cache_test:PrefixTree*")
fault("rules-014", "a miss does not know of other rules",
      "if («is_elsewhere(root, text)») {",
      "false")
fault("rules-015", "a block under other rules counts as far as its own tokens go",
      "node = find(node, tokens.subspan(first, block_size_)); «if (node < 0) break;»",
      "if (node < 0) { first = tokens.size(); break; }")
fault("rules-016", "what is seen of blocks is what the engine's own rules see",
      "const Visibility& v = seen_[«root_of(node) * n_layers_ + layer»];",
      "layer")

source("src/kv/fall.cpp", "own_rules_test elastic_test:ElasticSchedules.Fixed*")
fault("rules-017", "pages of another rule's plan count for this one",
      "planned.choices.clear(); planned.pages = 0; if (!rule.is_elastic) continue;",
      "if (MUT && !rule.is_elastic) continue; planned.choices.clear(); planned.pages = 0; "
      "if (!rule.is_elastic) continue;")

source("src/backend/cuda/step_recorder.cpp", "cuda_engine_test:CudaStep.Shapes* own_rules_test_cuda")
fault("rules-018", "recorded steps are replayed although other layers are measured",
      "measured = mix(measured + («asks ? 1 : 0»));",
      "0")

source("src/engine/pressure.cpp", "own_rules_test elastic_test:ElasticSchedules.Fixed*")
same("rules-019", "budgets of rules that have none are to fall",
     "return «setup_of(sequence).policies.is_elastic()» &&",
     "true",
     "who has no elastic layer holds no positions that count, so that none of its budgets is too "
     "large, and its context never ends before its text does")
source("src/engine/levels.cpp", "own_rules_test elastic_test:ElasticSchedules.Fixed*")
fault("rules-020", "a newcomer that gives nothing up makes others give",
      "if («!setup_of(newcomer.sequence).policies.is_elastic()») return false;",
      "false")
fault("rules-022", "all decide at the asking one's lengths",
      "if (cache_.length(id) % «interval_of(*member.sequence)» == 0 &&",
      "interval_of(asking)")

source("src/engine/step_sizes.cpp", "own_rules_test own_rules_test_cuda")
fault("rules-023", "layers that turn alike under the engine's own rules share angle rows",
      "return std::all_of(all.begin(), «all.end()»,",
      "all.begin() + 1")

source("src/engine/sessions.cpp", "own_rules_test")
fault("rules-024", "a fork goes by the engine's own rules",
      "std::make_unique<Session>(*cache, «from.sequence.rules()»);",
      "0")

source("src/engine/settings.cpp", "own_rules_test")
fault("rules-025", "a session takes another rule without a word",
      "if («spec.empty() || named == its») return its;",
      "true")
fault("rules-026", "the longest sequence is that of the engine's own rules",
      "const int64_t context = setup.of(«rules»).longest;",
      "0")

source("src/engine/setup.cpp", "own_rules_test")
fault("rules-027", "the pool is that of the engine's own rules",
      "«pages = std::max(pages, setup.others.back().pool.n_pages);»",
      "")
fault("rules-028", "only the engine's own rules are checked against the pool",
      "if («min_pages(setup.of(rules)) > min_pages(setup.of(most))») most = rules;",
      "false")

source("src/engine/advice.cpp", "own_rules_test")
fault("rules-029", "what is proposed in place of another rule is for the engine's own",
      "if («rules > 0») { const auto i",
      "false")
fault("rules-030", "a proposal changes the wrong one of the other rules",
      "(*proposal.other_policies)[«i»] =",
      "0")

source("src/engine/sequence.h", "own_rules_test elastic_test:ElasticSchedules.Fixed*")
fault("rules-021", "floors are those of the engine's own rules",
      "least_budget_(cache.least_budget(«rules»)) {}",
      "0")
