#include "answer_json.h"

namespace cli {
namespace {

Json timings_json(const paddock::Timings& t, bool has_token) {
  const auto rate = [](int64_t n, double s) { return s > 0 ? static_cast<double>(n) / s : 0.0; };
  return {{"prefill_seconds", t.prefill_seconds},
          {"prefill_tokens", t.prefill_tokens},
          {"prefill_tokens_per_second", rate(t.prefill_tokens, t.prefill_seconds)},
          {"decode_seconds", t.decode_seconds},
          {"decode_tokens", t.decode_tokens},
          {"decode_tokens_per_second", rate(t.decode_tokens, t.decode_seconds)},
          {"queue_seconds", t.queue_seconds},
          {"first_token_seconds", has_token ? Json(t.first_token_seconds) : Json(nullptr)},
          {"token_gaps", Json::parse(paddock::to_json(t.token_gaps))}};
}

Json logprobs_json(const paddock::GenerateResult& result) {
  Json out = Json::array();
  for (size_t i = 0; i < result.logprobs.size(); ++i) {
    Json top = Json::array();
    for (const paddock::TokenLogprob& t : result.top_logprobs[i]) {
      top.push_back({{"id", t.id}, {"logprob", t.logprob}});
    }
    out.push_back({{"id", result.logprobs[i].id},
                   {"logprob", result.logprobs[i].logprob},
                   {"top", std::move(top)}});
  }
  return out;
}

/// Of records that print themselves.
template <typename Record>
Json list_json(const std::vector<Record>& records) {
  Json out = Json::array();
  for (const Record& record : records) out.push_back(Json::parse(paddock::to_json(record)));
  return out;
}

}  // namespace

Json answer_json(const paddock::GenerateResult& result, uint64_t seed, bool logprobs,
                 const paddock::KvStats* kv) {
  Json out = {{"text", result.text},
              {"prompt_tokens", result.prompt_tokens},
              {"tokens", result.tokens},
              {"finish_reason", paddock::finish_reason_name(result.finish_reason)},
              {"seed", seed},
              {"timings", timings_json(result.timings, !result.tokens.empty())}};
  if (!result.budget_changes.empty()) out["budget_changes"] = list_json(result.budget_changes);
  if (!result.preempted.empty()) out["preempted"] = list_json(result.preempted);
  if (kv != nullptr) out["kv"] = Json::parse(paddock::to_json(*kv));
  if (logprobs) out["logprobs"] = logprobs_json(result);
  if (!result.error.empty()) out["error"] = result.error;
  return out;
}

}  // namespace cli
