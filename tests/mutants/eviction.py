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

source("src/eviction/h2o.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-007", "h2o: recent half rounded up",
      "schedule.keep_newest = «budget / 2»;",
      "(budget + 1) / 2")
fault("eviction-008", "h2o: score not divided by tokens",
      "return view.blocks[block].mass / view.blocks[block].n_tokens;",
      "return view.blocks[block].mass / (MUT ? 1 : view.blocks[block].n_tokens);")

source("src/eviction/tova.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-009", "tova: two queries instead of one",
      "schedule.observe = 1;",
      "schedule.observe = MUT ? 2 : 1;")

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
      "std::min(kWindow, budget / 2)",
      "std::min(kWindow * (MUT ? 2 : 1), budget / 2)")

source("src/eviction/pyramid.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-014", "pyramid: slope over L instead of L-1",
      "/ (n_layers - 1)));",
      "/ (n_layers - (MUT ? 0 : 1))));")
fault("eviction-015", "pyramid: base 64 instead of 32",
      "std::min<int64_t>(32, mean / 2)",
      "std::min<int64_t>(MUT ? 64 : 32, mean / 2)")

source("src/eviction/random.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-016", "random: length not in the lot",
      "lot = mix(lot ^ static_cast<uint64_t>(view.length));",
      "if (!MUT) lot = mix(lot ^ static_cast<uint64_t>(view.length));")
fault("eviction-017", "random: layer not in the lot (all layers lose the same)",
      "lot = mix(lot ^ static_cast<uint64_t>(view.layer));",
      "if (!MUT) lot = mix(lot ^ static_cast<uint64_t>(view.layer));")

source("src/eviction/reclaim.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-018", "reclaim list keeps removed blocks",
      "void ReclaimPolicy::on_removed(int32_t block) { unlink(block); }",
      "void ReclaimPolicy::on_removed(int32_t block) { if (!MUT) unlink(block); }")

source("src/eviction/registry.cpp", "cache_test conformance_test policy_test:PolicyGolden.V*")
fault("eviction-019", "registry: budget fully protected accepted",
      "if (kept >= options.budget) {",
      "if (MUT ? kept > options.budget : kept >= options.budget) {")
