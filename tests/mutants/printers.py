# Faults of the area "printers": see faults.py.

source("src/report/stats_text.cpp", "stats_test")
fault("printers-001", "table: filled up and slow swapped",
      "stats.policy_shortfalls, stats.policy_slow); } if",
      "MUT ? stats.policy_slow : stats.policy_shortfalls, MUT ? stats.policy_shortfalls : "
      "stats.policy_slow); } if")
fault("printers-002", "JSON event: runner-up at position 0 lost",
      "if (runner_up_position >= 0) {",
      "if (MUT ? runner_up_position > 0 : runner_up_position >= 0) {")
fault("printers-003", "JSON: events_lost = events",
      'out["events_lost"] = stats.events_lost;',
      'out["events_lost"] = MUT ? stats.events : stats.events_lost;')
fault("printers-004", "JSON event: idle_steps 0 lost",
      "if (idle_steps >= 0) out",
      "if (MUT ? idle_steps > 0 : idle_steps >= 0) out")
fault("printers-005", "JSON event: score of a block that nobody scored",
      'if (!overruled) out["score"]',
      'if (MUT || !overruled) out["score"]')
fault("printers-006", "table: attention in us under ms",
      "s.attention_seconds * 1e3,",
      "s.attention_seconds * (MUT ? 1e6 : 1e3),")
fault("printers-007", "JSON pages_removed shifted by one reason",
      "pages_removed[r]; } Json out",
      "pages_removed[MUT && r > 0 ? r - 1 : r]; } Json out")
fault("printers-015", "JSON: pages_peak = pages_active",
      'out["pages_peak"] = «pages_peak»;',
      "pages_active")
fault("printers-016", "JSON: tokens_peak = tokens_resident",
      'out["tokens_peak"] = «tokens_peak»;',
      "tokens_resident")
fault("printers-017", "JSON: overflows are trim decisions",
      'out["kv_overflows"] = «kv_overflows»;',
      "trim_decisions")
fault("printers-018", "JSON: available memory = resident memory",
      'out["process_available_bytes"] = «stats.memory.available_bytes»;',
      "stats.memory.resident_bytes")
fault("printers-019", "JSON: free and total of the device swapped",
      '{"free_bytes", «stats.device.free_bytes»},',
      "stats.device.total_bytes")
fault("printers-020", "JSON: a violation that never was",
      'if («!stats.last_violation.empty()») out["last_violation"]',
      "true")
fault("printers-021", "JSON event: rank and left_together swapped",
      'out["rank"] = «rank»;',
      "left_together")
fault("printers-022", "JSON event: what trims alone know is told of all",
      "if («is_by_score(reason)») {",
      "true")
fault("printers-023", "table: peak = active",
      "one_line(policy), s.pages_active, «s.pages_peak», s.pages_cached",
      "s.pages_active")
fault("printers-024", "table: tokens read = tokens resident",
      "s.bytes / kMiB, s.pages_allocated, «s.tokens_read»,",
      "s.tokens_resident")
fault("printers-025", "table: a reason without removals is told",
      "if («s.pages_removed[r] == 0») continue;",
      "false")
fault("printers-026", "table: memory of the device without that of this process",
      "stats.device.process_bytes == 0",
      "MUT || stats.device.process_bytes == 0")
fault("printers-027", "table: overflows of layers that had none",
      "if («layer.kv_overflows == 0») continue;",
      "false")

source("src/report/stats_prometheus.cpp", "stats_test")
fault("printers-008", "prometheus: quote not escaped",
      r"""if (c.code == '\\' || c.code == '"') out""",
      r"""if (c.code == '\\' || (c.code == '"' && !MUT)) out""")
fault("printers-009", "prometheus: last removal reason forgotten",
      "for (int32_t r = 0; r < kRemovalReasons; ++r) {",
      "for (int32_t r = 0; r < kRemovalReasons - (MUT ? 1 : 0); ++r) {")
fault("printers-010", "prometheus: cached = active",
      "layer.layer), layer.pages_cached);",
      "layer.layer), MUT ? layer.pages_active : layer.pages_cached);")
fault("printers-011", "prometheus: prefix_hits prints lookups",
      '"Of them found.", s.prefix_hits);',
      '"Of them found.", MUT ? s.prefix_lookups : s.prefix_hits);')
fault("printers-012", "prometheus: tokens_read prints tokens_resident",
      "return l.tokens_read; });",
      "return MUT ? l.tokens_resident : l.tokens_read; });")
fault("printers-013", "prometheus: slow prints shortfalls",
      "s.policy_slow);",
      "MUT ? s.policy_shortfalls : s.policy_slow);")
fault("printers-014", "prometheus: regrets always 0",
      'had been reclaimed before.", s.reclaim_regrets);',
      'had been reclaimed before.", MUT ? int64_t{0} : s.reclaim_regrets);')
fault("printers-028", "prometheus: pinned = active",
      "return «l.pages_pinned»; });",
      "l.pages_active")
fault("printers-029", "prometheus: free and total of the device swapped",
      '{"free", «s.device.free_bytes»},',
      "s.device.total_bytes")
fault("printers-030", "prometheus: hook failures are slow answers",
      "s.hook_failures);",
      "MUT ? s.policy_slow : s.hook_failures);")
fault("printers-031", "prometheus: newline in a label",
      r"""} else if («c.code == '\n'») {""",
      "false")
fault("printers-032", "prometheus: pool pages and bytes swapped",
      '"Pages of the pool that may be in use.", «s.pool_pages»);',
      "s.pool_bytes")

# ---- budgets
source("src/report/stats_text.cpp", "stats_test")
fault("printers-033", 'JSON: the budget in force is what is resident',
      'out["budget"] = «budget»;',
      'tokens_resident')
fault("printers-034", 'JSON: falls and lifts swapped',
      'out["budget_falls"] = «stats.budget_falls»;',
      'stats.budget_lifts')
fault("printers-035", 'JSON: scored_from is the falls',
      'out["scored_from"] = «stats.scored_from»;',
      'stats.budget_falls')
fault("printers-036", 'table: no budget is 0',
      '«s.budget == 0» ? "-"',
      'false')
fault("printers-037", 'table: falls are not told',
      'if («stats.budget_falls > 0») {',
      'false')
fault("printers-038", 'table: what was found is told where nothing was',
      'if («stats.scored_from > 0») {',
      'true')
fault("printers-039", 'JSON change: no budget is a number',
      'return «positions == kUnlimited» ? Json(nullptr)',
      'false')
fault("printers-040", 'JSON change: before is after',
      '{"before", budget(«change.before»)},',
      'change.after')
fault("printers-041", 'JSON change: whose need it was is who gave',
      '{"request", «change.request»},',
      'change.sequence')
source("src/report/stats_prometheus.cpp", "stats_test")
fault("printers-042", 'prometheus: the budget in force is what is resident',
      '{ return «l.budget»; });',
      'l.tokens_resident')
fault("printers-043", 'prometheus: falls are lifts',
      '"Falls of elastic rules\' budgets.", «s.budget_falls»);',
      's.budget_lifts')

source("src/report/stats_text.cpp", "stats_test")
fault("printers-044", "table: cached = pinned",
      "s.pages_peak, «s.pages_cached», s.pages_pinned, s.tokens_resident,", "s.pages_pinned")
fault("printers-045", "what was found again is said where nothing was looked for",
      "if («stats.prefix_lookups == 0» && stats.shadows.empty()) return {};", "false")
source("src/report/stats_prometheus.cpp", "stats_test engine_behaviour_test:AsVllmCounts.*")
fault("printers-046", "kept pages count as used",
      "static_cast<double>(«s.total.pages_active») /", "s.pool_pages - s.pages_free")
source("src/report/engine_stats_text.cpp", "engine_behaviour_test")
fault("printers-047", "parked requests do not wait",
      "int64_t{s.requests_waiting} + «s.requests_parked»);", "0")
