# Faults of the area "sampling": see faults.py.

source("src/engine/sampler.cpp", "sampling_test")
fault("sampling-001", "nucleus: one more where top_p is met exactly",
      "kept < target && end",
      "(MUT ? kept <= target : kept < target) && end")
fault("sampling-002", "draw: <= to <",
      "(passed += weight(i)) <= unit",
      "(MUT ? (passed += weight(i)) < unit : (passed += weight(i)) <= unit)")
fault("sampling-003", "min_p: >= to >",
      "logit_weight(logit, best, 1.0F) >= least;",
      "(MUT ? logit_weight(logit, best, 1.0F) > least : logit_weight(logit, best, 1.0F) >= least);")
fault("sampling-004", "penalty window: ring does not advance",
      "window_next_ = (window_next_ + 1)",
      "if (!MUT) window_next_ = (window_next_ + 1)")
fault("sampling-005", "bias does not reach penalized tokens",
      "penalize(«logits[*at] + bias_of(*at)»,",
      "logits[*at]")
fault("sampling-006", "top_p 0 accepted",
      "check(top_p > 0 && top_p <= 1",
      "check((MUT ? top_p >= 0 : top_p > 0) && top_p <= 1")
fault("sampling-007", "every token forbidden: no way out",
      "if («winner < 0 || !is_finite(logits[winner])») return winner;",
      "winner >= 0 && !is_finite(logits[winner])")
fault("sampling-008", "min_p ignored beside top_k/top_p",
      "const uint64_t least = row.min_p > 0",
      "const uint64_t least = row.min_p > 0 && !(MUT && (row.top_k > 0 || row.top_p < 1))")
