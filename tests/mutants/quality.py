# Faults of the area "quality": see faults.py.

source("src/diagnose/quality.cpp", "quality_test")
fault("quality-001", "kl_max_position: last instead of first of equals",
      "if (at.kl > sum.kl_max) {",
      "if (MUT ? at.kl >= sum.kl_max : at.kl > sum.kl_max) {")
fault("quality-002", "kept.max is what is resident at the end, not the peak",
      "kept_[i].max = «std::max(kept_[i].max, now[i].tokens_peak)»;",
      "now[i].tokens_resident")
fault("quality-003", "kept.mean counts what earlier runs read",
      "now[i].tokens_read - read_before_[i]);",
      "now[i].tokens_read - (MUT ? 0 : read_before_[i]));")
fault("quality-004", "recall counts facts that the baseline did not know",
      "const bool counts = results.empty() || results.front().facts[i].recalled;",
      "const bool counts = MUT || results.empty() || results.front().facts[i].recalled;")
fault("quality-005", "answer_nll is a sum, not a mean",
      "static_cast<double>(answer_tokens[fact]);",
      "static_cast<double>(MUT ? 1 : answer_tokens[fact]);")
fault("quality-006", "a cancelled compare() cancels all later ones",
      "impl.cancelled = false; const auto n = static_cast<int64_t>(tokens.size());",
      "if (!MUT) impl.cancelled = false; const auto n = static_cast<int64_t>(tokens.size());")
fault("quality-007", "score of the previous position reported",
      "std::span<const PositionQuality>(scores).subspan( static_cast<size_t>(position - begin - 1)",
      "std::span<const PositionQuality>(scores).subspan( static_cast<size_t>(position - begin - "
      "(MUT && position > begin + 1 ? 2 : 1))")
fault("quality-008", "meter's engines keep a batch larger than the chunk",
      "engine.batch_size = std::min(engine.batch_size, options.chunk);",
      "if (!MUT) engine.batch_size = std::min(engine.batch_size, options.chunk);")
fault("quality-009", "only the last token of an answer decides recalled",
      "if (best_token(row) != static_cast<size_t>(next)) recall.recalled = false;",
      "recall.recalled = MUT ? best_token(row) == static_cast<size_t>(next) : recall.recalled && "
      "best_token(row) == static_cast<size_t>(next);")

source("src/diagnose/quality_rows.cpp", "quality_test")
fault("quality-010", "KL may be negative",
      "other.kl = std::max(kl, 0.0);",
      "other.kl = MUT ? kl : std::max(kl, 0.0);")
fault("quality-011", "agreement with the text, not the baseline",
      "best_token(logits) == baseline.best;",
      "best_token(logits) == (MUT ? static_cast<size_t>(next) : baseline.best);")

source("src/diagnose/quality_facts.cpp", "quality_test")
fault("quality-012", "make_facts: numbers may repeat",
      "while (!numbers.insert(number).second) number",
      "while (!numbers.insert(number).second && !MUT) number")
fault("quality-013", "recall: prompt ends before the last piece of text",
      "append(out.tokens, text.subspan(done)); out.prompt_tokens = static_cast<int64_t>(out.tokens.size());",
      "const auto before = static_cast<int64_t>(out.tokens.size()); append(out.tokens, "
      "text.subspan(done)); out.prompt_tokens = MUT ? before : "
      "static_cast<int64_t>(out.tokens.size());")
