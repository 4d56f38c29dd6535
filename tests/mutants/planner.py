# Faults of the area "planner": see faults.py.

source("src/engine/step_planner.cpp", "cache_test")
fault("planner-001", "last plan of a sequence not recorded",
      "last_plan_[part.sequence] = step_;",
      "{ if (!MUT) last_plan_[part.sequence] = step_; }")
fault("planner-002", "report(): key norms of the batch's first sequence for all",
      "span(key_norms_[layer]).subspan(part.first_token, part.n_tokens);",
      "span(key_norms_[layer]).subspan(MUT ? 0 : part.first_token, part.n_tokens);")
fault("planner-003", "attention use of all sequences in one place",
      "if (uses != nullptr) uses += entries.size();",
      "if (uses != nullptr && !MUT) uses += entries.size();")
fault("planner-004", "layers of different query cap share angle rows",
      "x.query_shift == y.query_shift && x.query_cap == y.query_cap;",
      "x.query_shift == y.query_shift && (MUT || x.query_cap == y.query_cap);")
fault("planner-005", "plan says that nothing changed in any table",
      "cache_.take_changes(part.sequence, layer), last_plan_",
      "(MUT ? static_cast<int32_t>(entries.size()) : 0) + (MUT ? 0 : 1) * "
      "cache_.take_changes(part.sequence, layer), last_plan_")
