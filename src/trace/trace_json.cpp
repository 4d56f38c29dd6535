// Records of a trace as lines of JSON.
#include <nlohmann/json.hpp>

#include "paddock/trace.h"

namespace paddock {
namespace {

using Json = nlohmann::ordered_json;

Json bounded(int32_t value) { return value == kUnlimited ? Json(nullptr) : Json(value); }

Json to(const TrimSchedule& s) {
  return {{"budget", bounded(s.budget)},  {"every", s.every},
          {"observe", s.observe},         {"keep_first", s.keep_first},
          {"keep_newest", s.keep_newest}, {"newest_divisor", s.newest_divisor}};
}

Json to(const TraceHeader& h) {
  return {{"record", "engine"},         {"version", h.version},
          {"library", h.library},       {"model", h.model},
          {"n_layers", h.n_layers},     {"n_heads", h.n_heads},
          {"n_kv_heads", h.n_kv_heads}, {"head_dim", h.head_dim},
          {"vocab_size", h.vocab_size}, {"device", h.device},
          {"kv_type", h.kv_type},       {"block_size", h.block_size},
          {"page_bytes", h.page_bytes}, {"pool_pages", h.pool_pages},
          {"context", h.context},       {"model_context", h.model_context},
          {"batch_size", h.batch_size}, {"max_sequences", h.max_sequences},
          {"reuse", h.reuse},           {"reclaim", h.reclaim},
          {"tokens", h.has_tokens},     {"scores", h.has_scores},
          {"times", h.has_times},       {"started", h.started}};
}

Json to(const TraceRules& rules) {
  Json out = {{"record", "rules"},
              {"number", rules.number},
              {"policy", rules.policy},
              {"layers", Json::array()}};
  for (const TraceRules::Layer& layer : rules.layers) {
    out["layers"].push_back({{"policy", layer.policy},
                             {"sinks", layer.visibility.sinks},
                             {"window", bounded(layer.visibility.window)},
                             {"schedule", to(layer.schedule)},
                             {"measures_attention", layer.needs.attention},
                             {"measures_key_norms", layer.needs.key_norms},
                             {"elastic", layer.is_elastic},
                             {"shares_by_need", layer.shares_by_need},
                             {"compact", layer.is_compact}});
  }
  return out;
}

Json to(const TraceMemory& m) {
  return {{"record", "memory"},
          {"resident_bytes", m.process.resident_bytes},
          {"available_bytes", m.process.available_bytes},
          {"device", m.device.device},
          {"reserved_bytes", m.device.reserved_bytes},
          {"process_bytes", m.device.process_bytes},
          {"free_bytes", m.device.free_bytes},
          {"total_bytes", m.device.total_bytes}};
}

Json to(const TraceRequest& r) {
  return {{"record", "request"},    {"request", r.request},      {"session", r.session},
          {"answer", r.answer},     {"begin", r.begin},          {"prompt_tokens", r.prompt_tokens},
          {"priority", r.priority}, {"max_tokens", r.max_tokens}};
}
Json to(const TraceRun& r) {
  return {
      {"record", "run"}, {"sequence", r.sequence}, {"request", r.request}, {"session", r.session}};
}
Json to(const TraceFinish& f) {
  return {{"record", "finish"},
          {"request", f.request},
          {"finish_reason", finish_reason_name(f.reason)},
          {"made_tokens", f.made_tokens},
          {"cached_tokens", f.cached_tokens},
          {"recomputed_tokens", f.recomputed_tokens},
          {"preemptions", f.preemptions}};
}
Json to(const TraceStepBegin&) { return {{"record", "step_begin"}}; }
Json to(const TraceStepEnd& e) {
  return {{"record", "step_end"}, {"completed", e.completed}, {"took", e.seconds}};
}
Json to(const TraceTick& t) {
  return {{"record", "tick"}, {"pages_free", t.pages_free}, {"pages_cached", t.pages_cached}};
}
Json to(const TraceOpen& o) {
  return {{"record", "open"}, {"sequence", o.sequence}, {"pin", o.is_pin}, {"rules", o.rules}};
}
Json to(const TraceClose& c) {
  return {{"record", "close"}, {"sequence", c.sequence}, {"reason", removal_reason_name(c.reason)}};
}
Json to(const TraceFork& f) { return {{"record", "fork"}, {"from", f.from}, {"to", f.to}}; }
Json to(const TraceProtection& p) {
  Json out = {{"record", "protection"}, {"sequence", p.sequence}, {"ranges", Json::array()}};
  for (const TraceProtection::Range& range : p.ranges) {
    out["ranges"].push_back(
        {{"first_position", range.first_position}, {"n_tokens", range.n_tokens}});
  }
  return out;
}
Json to(const TraceCommit& c) {
  return {{"record", "commit"},
          {"sequence", c.sequence},
          {"length", c.length},
          {"n_tokens", c.n_tokens},
          {"pages_per_layer", c.pages_per_layer}};
}
Json to(const TraceTokens& t) {
  return {{"record", "tokens"},
          {"sequence", t.sequence},
          {"first_position", t.first_position},
          {"ids", t.ids}};
}
Json to(const TracePiece& p) { return {{"record", "piece"}, {"id", p.id}, {"text", p.bytes}}; }
Json to(const TraceBlock& b) {
  return {{"record", "block"}, {"sequence", b.sequence}, {"block", b.block}, {"hash", b.hash}};
}
Json to(const TracePrefix& p) {
  return {{"record", "prefix"}, {"sequence", p.sequence}, {"from", p.from},
          {"to", p.to},         {"lookups", p.lookups},   {"hits", p.hits}};
}
Json to(const TraceListed& l) {
  return {{"record", "listed"},
          {"sequence", l.sequence},
          {"layer", l.layer},
          {"first_position", l.first_position},
          {"n_tokens", l.n_tokens}};
}
Json to(const TraceMiss& m) {
  return {{"record", "miss"},
          {"sequence", m.sequence},
          {"miss", Json::parse(to_json(m.miss))},
          {"lookups", m.lookups},
          {"regrets", m.regrets}};
}
Json to(const TraceCut& c) {
  return {{"record", "cut"}, {"sequence", c.sequence}, {"length", c.length}};
}
Json to(const TracePassed& p) {
  return {{"record", "passed"},
          {"sequence", p.sequence},
          {"layer", p.layer},
          {"first_position", p.first_position},
          {"n_tokens", p.n_tokens}};
}
Json to(const TraceCopy& c) {
  return {{"record", "copy"}, {"sequence", c.sequence}, {"layer", c.layer}};
}
Json to(const TraceMerge& m) {
  return {{"record", "merge"}, {"sequence", m.sequence}, {"layer", m.layer}};
}
Json to(const TraceRefusal& r) {
  return {{"record", "refusal"}, {"sequence", r.sequence}, {"n_tokens", r.n_tokens}};
}
Json to(const TraceDecision& d) {
  Json out = {{"record", "decision"},
              {"sequence", d.sequence},
              {"layer", d.layer},
              {"length", d.length},
              {"tokens", d.tokens},
              {"schedule", to(d.schedule)},
              {"left_together", d.left_together},
              {"replayed", d.is_replayed}};
  if (d.runner_up_position < 0) return out;
  out["runner_up_position"] = d.runner_up_position;
  out["runner_up_score"] = d.runner_up_score;
  return out;
}
Json to(const TraceCandidates& c) {
  Json out = {{"record", "candidates"},
              {"sequence", c.sequence},
              {"layer", c.layer},
              {"blocks", Json::array()}};
  for (const TraceCandidates::Block& b : c.blocks) {
    Json block = {{"first_position", b.first_position},
                  {"n_tokens", b.n_tokens},
                  {"protected", b.is_protected}};
    if (b.is_ranked) block["score"] = b.score;
    block["mass"] = b.mass;
    block["recent_mass"] = b.recent_mass;
    block["key_norm"] = b.key_norm;
    if (b.last_used >= 0) block["last_used"] = b.last_used;
    out["blocks"].push_back(std::move(block));
  }
  return out;
}
Json to(const TraceRemoval& r) {
  Json out = {{"record", "removal"}};
  out.update(Json::parse(to_json(r.event)));
  out["retained"] = r.retained;
  if (r.measured) {
    out["mass"] = r.mass;
    if (r.last_used >= 0) out["last_used"] = r.last_used;
  }
  if (r.event.sequence < 0) {
    out["request"] = r.request;
    out["hash"] = r.text_hash;
  }
  return out;
}
Json to(const TraceBudget& b) {
  Json out = {{"record", "budget"}};
  out.update(Json::parse(to_json(b.change)));
  out.erase("event");
  return out;
}
Json to(const TracePreemption& p) {
  Json out = {{"record", "preemption"}};
  out.update(Json::parse(to_json(p.preemption)));
  out.erase("event");
  return out;
}
Json to(const TraceLimit& l) { return {{"record", "limit"}, {"pool_pages", l.pool_pages}}; }
Json to(const TraceViolation& v) {
  if (v.what.empty()) return {{"record", "shortfall"}};
  return {{"record", "violation"}, {"what", v.what}};
}
Json to(const TraceEnd&) { return {{"record", "end"}}; }

}  // namespace

std::string to_json(const TraceRecord& record) {
  Json out = std::visit([](const auto& what) { return to(what); }, record.what);
  if (!out.contains("step")) out["step"] = record.step;
  out["seconds"] = record.seconds;
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace paddock
