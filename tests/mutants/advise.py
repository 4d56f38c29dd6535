# Faults of the area "advise": see faults.py.

ADVICE = "cli_test:Advice.* cli_test:CliAdvise.*"

source("examples/paddock/advise_candidates.cpp", ADVICE)
fault("advise-001", "the largest budget that fits is one step short",
      "return «low * kStep»;", "(low - 1) * kStep")
fault("advise-002", "what needs more than the memory fits",
      "(!room.memory || «candidate.pool_bytes <= *room.memory»);", "true")
fault("advise-003", "a larger pool is beaten by none",
      "const bool as_good = «a.pool_bytes <= b.pool_bytes» && facts_a", "true")
fault("advise-004", "who is as quick is not beaten",
      "«a.speed->decode_rate * kSameSpeed» >= b.speed->decode_rate;", "a.speed->decode_rate")
fault("advise-005", "what is equal is beaten",
      "return as_good && «better»;", "true")
fault("advise-006", "nearness counts before facts",
      "if («facts_a != facts_b») return facts_a > facts_b;", "false")
fault("advise-007", "what dropped nothing may replace full",
      "c.quality->dropped ? c.quality->kl_mean <= kNearFull : «c.options.kv.policy == "
      "full.options.kv.policy»;", "true")
fault("advise-008", "a change may cost facts",
      "«c.quality->recalled.value_or(0) < full.quality->recalled.value_or(0)») {", "false")
fault("advise-009", "every change is a gain",
      "if («!gains && !gains_prefill») continue;", "false")
fault("advise-010", "what was not measured is on the front",
      "c.is_on_front = «is_measured(c)» && std::none_of", "c.fits")
fault("advise-011", "flags leave out the batch",
      "if («o.batch_size != kEngineDefaults.batch_size») flags", "false")
fault("advise-012", "flags leave out the pool of a rule without a budget",
      "if («o.kv.budget_bytes != 0») {", "false")
fault("advise-013", "flags leave out the KV type",
      "if («o.kv.type != paddock::KvType::kAuto») {", "false")

source("examples/paddock/advise_measure.cpp", ADVICE)
fault("advise-014", "a candidate is as near to full as full itself",
      "near[i].add(«rules[i + 1]»);", "rules[0]")
fault("advise-015", "a candidate recalls what full does",
      "found[i + 1].recalled = «recall.contenders[i].recalled»;", "recall.baseline.recalled")
fault("advise-018", "nearness counts the prompt, too",
      "«at >= compare.prompt_tokens» && i < near.size()", "true")
fault("advise-016", "time never runs out",
      "InterruptGuard::interrupted() || «seconds_left() <= 0»;", "false")

source("examples/paddock/advise_report.cpp", ADVICE)
fault("advise-017", "several users get the command for one",
      "if («a.users() > 1») {", "false")
