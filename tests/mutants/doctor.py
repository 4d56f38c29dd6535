# Faults of the area "doctor": see faults.py. Of what a trace comes to over time, what counts as a
# cause, and the command.

source("src/diagnose/run_record.cpp", "doctor_test")
fault("doctor-001", "a failed step is a good one",
      "n.failed_steps += «e.completed ? 0 : 1»;", "0")
fault("doctor-002", "the slowest step is the last one",
      "n.slowest = «std::max(n.slowest, e.seconds)»;", "e.seconds")
fault("doctor-003", "samples forget what earlier steps wrote",
      "«a.tokens += b.tokens;»", "")

source("src/diagnose/run_record_texts.cpp", "doctor_test")
fault("doctor-004", "a sequence that is parked is not counted",
      "«++n.preemptions;»", "")
fault("doctor-005", "what a prefix found is not counted",
      "«n.hits += p.hits;»", "")

source("src/diagnose/doctor_causes.cpp", "doctor_test")
fault("doctor-006", "a budget is blamed for what a wrong policy dropped",
      "trims <= 0 || «run.n.violations > 0»", "false && run.n.violations > 0")
fault("doctor-007", "what would have fitted is called too large",
      "const bool would_fit = «run.n.pages_full_peak <= run.pool_pages»;", "run.pool_pages == 0")

source("examples/paddock/doctor.cpp", "cli_test:CliDoctor.*")
fault("doctor-008", "a limit that is met is passed",
      'if (compare == ">=") return «v >= value»;', "v > value")
fault("doctor-009", "limits never end with 1", "«code = 1;»", "")

source("examples/paddock/doctor_rerun.cpp", "cli_test:CliDoctorRerun.*")
fault("doctor-010", "what is proposed is run with the rule that was",
      'if («cause.setting == "policy"») settings.kv_policy', "false")
fault("doctor-011", "how near to full it is counts the prompt, too",
      "if («at < how.prompt_tokens») return true;", "false")
fault("doctor-012", "what is refused ends the command",
      "if («!is_refusal(e)») throw;", "true")
source("src/diagnose/doctor_causes.cpp", "doctor_test cli_test:CliDoctorCount.*")
fault("doctor-013", "pages that were wanted are those of what was made",
      "r.prompt_tokens + («was_cut» ? r.max_tokens : r.made)", "false")
fault("doctor-014", "the greedy one's share is a sum, not a mean",
      "if («found.times > 0») found.share /=", "false")

source("src/diagnose/run_record_texts.cpp", "doctor_test")
fault("doctor-020", "what a host took back is there in the map",
      "if (fate == BlockFate::kResident) «fate = BlockFate::kTaken;»", "")
fault("doctor-021", "what a text never had passed a window",
      "its.fates.resize(i + 1, «BlockFate::kAbsent»);", "BlockFate::kWindow")
fault("doctor-022", "what a rule dropped passed a window",
      "case RemovalReason::kPolicyTrim: return «BlockFate::kTrimmed»;", "BlockFate::kWindow")
fault("doctor-023", "gaps go back to a block's first time",
      "«last_step_[b.hash] = step_;»", "last_step_.emplace(b.hash, step_);")

source("src/diagnose/doctor.cpp", "doctor_test")
fault("doctor-024", "an order of the host's own is asked for by its name",
      'options.reclaim = {«run.header.reclaim == "custom"» ? "lru" : run.header.reclaim};', "false")
fault("doctor-025", "every engine reclaims by lru",
      'options.reclaim = {«run.header.reclaim == "custom"» ? "lru" : run.header.reclaim};', "true")

source("src/diagnose/doctor_causes.cpp", "doctor_test")
fault("doctor-026", "what is said of a wrong policy is lost",
      '{"shortfalls", as_double(run.n.shortfalls)}}, «run.last_violation»});', "std::string()")

source("src/diagnose/run_record_texts.cpp", "doctor_test cli_test:CliDoctor*")
fault("doctor-027", "what falls for the context falls for want of pages",
      "if (at != texts_.end() && «is_for_context(at->second, b.change)») {",
      "false")
fault("doctor-028", "whatever falls of a rule that keeps to the context falls for that",
      "return layer.is_elastic && layer.is_compact && «header.context - change.length < layer.schedule.every»;",
      "true")
fault("doctor-029", "a later fall is for the context, too",
      "if («change.before != kUnlimited» || change.request != text.request) return false;",
      "false")
fault("doctor-030", "blocks that left for the context are counted for the pool",
      "n.context_trims += «text.fell_for_context» ? 1 : 0;",
      "false")
