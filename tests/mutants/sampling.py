# Faults of the area "sampling": see faults.py.

source("src/engine/sampler.cpp", "sampling_test engine_behaviour_test")
fault("sampling-001", "nucleus: one more where top_p is met exactly",
      "kept < target && end",
      "(MUT ? kept <= target : kept < target) && end")
fault("sampling-002", "draw: <= to <",
      "(passed += weight(i)) <= unit",
      "(MUT ? (passed += weight(i)) < unit : (passed += weight(i)) <= unit)")
fault("sampling-003", "min_p: >= to >",
      "«logit_weight(logit, best, 1.0F) >= least»;",
      "logit_weight(logit, best, 1.0F) > least")
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
fault("sampling-009", "top_k keeps one more",
      "kept = kept.first(«row.top_k»);",
      "std::min<size_t>(kept.size(), static_cast<size_t>(row.top_k) + 1)")
fault("sampling-010", "what top_k keeps is in no order",
      "return a.comes_before(b); }; std::nth_element",
      "return MUT ? b.comes_before(a) : a.comes_before(b); }; std::nth_element")
fault("sampling-011", "drawn in the order of logits",
      "[](const Candidate& a, const Candidate& b) { return «a.id() < b.id()»; });",
      "a.comes_before(b)")
fault("sampling-012", "min_p after the temperature",
      "const bool kept = logit == best || logit_weight(logit, best, «1.0F») >= least;",
      "row.temperature")
fault("sampling-013", "the temperature is 1",
      "return kept ? logit_weight(logit, best, «row.temperature») : 0;",
      "1.0F")
fault("sampling-014", "temperature: infinity is taken",
      "check(temperature >= 0 && «std::isfinite(temperature)»,",
      "true")
fault("sampling-015", "temperature 0 refused",
      "check(«temperature >= 0» &&",
      "temperature > 0")
fault("sampling-016", "top_k 0 refused",
      "check(«top_k >= 0»,",
      "top_k > 0")
fault("sampling-017", "top_p 1 refused",
      "check(top_p > 0 && «top_p <= 1»,",
      "top_p < 1")
fault("sampling-018", "min_p 0 refused",
      "check(«min_p >= 0» &&",
      "min_p > 0")
fault("sampling-019", "min_p above 1",
      "check(min_p >= 0 && «min_p <= 1»,",
      "min_p <= 2")
fault("sampling-020", "repeat_penalty 0 accepted",
      "check(«repeat_penalty > 0» &&",
      "repeat_penalty >= 0")
fault("sampling-021", "frequency_penalty: infinity is taken",
      "check(«std::isfinite(frequency_penalty)»,",
      "!std::isnan(frequency_penalty)")
fault("sampling-022", "presence_penalty: anything is taken",
      "check(«std::isfinite(presence_penalty)»,",
      "true")
fault("sampling-023", "penalty_window: one more",
      "penalty_window <= «1 << 20»,",
      "(1 << 20) + 1")
fault("sampling-024", "a bias for a token beyond the vocabulary",
      "check(id >= 0 && «id < vocab_size»,",
      "id <= vocab_size")
fault("sampling-025", "a bias of infinity",
      "check(!std::isnan(bias) && «bias < INFINITY»,",
      "true")
fault("sampling-026", "of two biases for a token the last counts",
      "«bias_[kept - 1].second += bias;»",
      "bias_[kept - 1].second = bias;")
fault("sampling-027", "penalties by presence alone are off",
      "options_.frequency_penalty != 0.0F || «options_.presence_penalty != 0.0F»;",
      "false")
fault("sampling-028", "a call counts as one position",
      "«observed_ += tokens.size();»",
      "++observed_;")
fault("sampling-029", "the window begins with the oldest tokens",
      "if (tokens.size() > width) tokens = «tokens.last(width)»;",
      "tokens.first(width)")
fault("sampling-030", "the next token has a token's bias",
      "return at != bias_.end() && «at->first == id» ? at->second : 0.0;",
      "true")
fault("sampling-031", "logits of the last token stay",
      "«std::copy(logits.begin(), logits.end(), adjusted_.begin());»",
      "if (observed_ % 2 == 0) std::copy(logits.begin(), logits.end(), adjusted_.begin());")
fault("sampling-032", "frequency counts once",
      "static_cast<int32_t>(«next - at»),",
      "1")
fault("sampling-033", "the bias is rounded before it is added",
      "adjusted_[id] = static_cast<float>(«logits[id] + bias»);",
      "logits[id] - bias")
fault("sampling-034", "frequency and presence swapped",
      "options_.repeat_penalty, «options_.frequency_penalty», options_.presence_penalty));",
      "options_.presence_penalty")
fault("sampling-035", "a greedy request draws",
      "if («options_.temperature == 0.0F») { return greedy_choice",
      "options_.temperature == 0.0F && options_.penalty_window > 0")
fault("sampling-036", "what forbids all tokens is not named",
      "«name(!bias_.empty(), fmt::format(\"logit_bias (of {} tokens)\", bias_.size()));»",
      "")
fault("sampling-037", "log-probabilities overflow",
      "const double largest = «*std::max_element(logits.begin(), logits.end())»;",
      "0.0")
fault("sampling-038", "the seed is the position's",
      "options_.min_p, «options_.seed», observed_};",
      "observed_")

source("src/core/mix.h", "sampling_test quality_test")
fault("sampling-039", "a generator's first number is that of the seed's next",
      "const uint64_t number = mix(«state»);",
      "state + kMixStep")
