# Faults of the area "plan": see faults.py. Of engines on paper.

source("src/engine/plan.cpp", "engine_test:Plan.*")
fault("plan-001", "the pool is not part of the total",
      "return weights_ + «s.reserved_bytes()» + sizes.activations", "0")
fault("plan-002", "tables are not part of the total",
      "sizes.activations + «sizes.tables»; }", "0")
fault("plan-003", "what is larger than the memory by a byte fits",
      "fit.fits = is_possible(setup_) && «total(setup_) <= memory»", "total(setup_) <= memory + 1")
fault("plan-004", "contexts are searched for one sequence",
      "longer.context = context;", "longer.context = context; if (MUT) longer.max_sequences = 1;")
fault("plan-005", "the longest context is what the memory holds, whatever the model was trained for",
      "setup_.policies.has_unbounded_layer() ? «std::min(fit.memory_context, most)»",
      "fit.memory_context")
fault("plan-006", "a bounded rule's context is that of the training",
      "fit.max_context = «setup_.policies.has_unbounded_layer()» ?", "true")
fault("plan-007", "users share one sequence's pool",
      "more.max_sequences = static_cast<int32_t>(users);",
      "more.max_sequences = static_cast<int32_t>(users); if (MUT) more.context = 1;")
fault("plan-008", "rules are proposed for one sequence alone",
      ".max_bytes = left / «users»", "1")
fault("plan-009", "rules are proposed that do not fit",
      "if («fits(with_proposal(setup_.asked, proposal), memory)») out.push_back", "true")
fault("plan-010", "keys and values beyond a window are read",
      "std::min({setup_.options.context, rule.max_resident(1), «rule.max_seen()»});", "int64_t{kUnlimited}")
fault("plan-011", "the output matrix is not read", "«add(t.output);»", "")
fault("plan-012", "weights that are read where they lie are not read",
      "own > 0 ? own : «in_file»", "0")
fault("plan-013", "the share of the memory that an engine would take is heeded",
      "«options.kv.budget_share = 0;»", "")

source("src/engine/engine_sizes.cpp", "engine_test:Plan.*")
fault("plan-014", "the tables count the pool", "reserved - «setup.reserved_bytes()»};", "0")
same("plan-015", "the books' own longest text is longer than is admitted",
     ".max_positions = «setup.longest»,", "setup.longest + 1000",
     "only books of one rule alone read it; an engine's rules bring their own, sequence_rules()",
     tests="engine_test:Plan.* engine_test engine_behaviour_test:Admission*")
fault("plan-016", "a step of one token",
      "}, «max_step_tokens(setup.options)»);", "1")

source("src/engine/step_sizes.cpp", "engine_test:Plan.* cache_test policy_test")
fault("plan-017", "no rows of angles for tables that turn by themselves",
      "by_sequence += «entries * std::min<int64_t>(max_tokens, max * config.max_sequences)»;", "0")
fault("plan-018", "layers that turn differently share their angles",
      "!a.moves_queries() && !b.moves_queries() && «same_rotations(a, b)»", "true")
fault("plan-019", "nothing is measured",
      "if (!rules.policies->layer(layer).needs.attention) continue;",
      "if (MUT || !rules.policies->layer(layer).needs.attention) continue;")

source("src/model/headers.cpp", "engine_test:Plan.*")
fault("plan-020", "guessed types are not called so",
      "headers.estimated = fmt::format(", "(MUT ? headers.data.tokenizer_error : headers.estimated) = fmt::format(")
fault("plan-021", "weights are bfloat16 whatever the configuration says",
      'if (name == "float32") return «DType::kF32»;', "DType::kBF16")
same("plan-022", "tied matrices are two",
     "if («!c.tied_embeddings») add", "true",
     "nothing lies behind their bytes, so they hold the same values, and one is let go of again")

source("src/io/gguf_parse.cpp", "engine_test:Plan.* files_hostile_test")
fault("plan-023", "a model is loaded although its end is missing",
      "if («data == Data::kHere» && end_in_file > header.file_size) {",
      "false")

source("examples/paddock/plan.cpp", "cli_test:CliPlan.*")
fault("plan-024", "the ceiling is that of one sequence",
      "return «users» * device.bytes_per_second / read;", "1.0")
fault("plan-025", "weights are read once for each sequence",
      "const double read = «static_cast<double>(plan.weights_read_bytes)» +",
      "users * static_cast<double>(plan.weights_read_bytes)")
fault("plan-026", "one machine was asked for, all are told",
      "if («!p.is_for_one») p.devices.insert", "true")
source("examples/paddock/plan_devices.cpp", "cli_test:CliPlan.*")
fault("plan-027", "the first machine of several alike is taken",
      "if («like.size() == 1») return *like[0];", "!like.empty()")
fault("plan-028", "a machine without a copy rate", "if («!(device.bytes_per_second > 0)») {", "false")
