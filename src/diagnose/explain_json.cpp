// An explanation as JSON.
#include <nlohmann/json.hpp>

#include "paddock/explain.h"

namespace paddock {
namespace {

using Json = nlohmann::ordered_json;

Json to(const ExplainedLoss& loss) {
  Json out = Json::parse(to_json(loss.removal.event));
  out["seconds"] = loss.seconds;
  out["turn"] = loss.turn;
  out["request"] = loss.request;
  out["attention"] = loss.removal.measured ? Json(loss.removal.mass) : Json(nullptr);
  out["last_used"] = loss.removal.last_used >= 0 ? Json(loss.removal.last_used) : Json(nullptr);
  if (is_by_score(loss.removal.event.reason)) {
    out["budget"] = loss.schedule.budget;
    out["by_fall"] = loss.by_fall;
    if (loss.by_fall) out["needed_by"] = loss.needed_by;
  }
  if (!loss.with_sinks.empty()) {
    out["with_sinks"] = {
        {"rule", loss.with_sinks}, {"sinks", loss.sinks}, {"fits", loss.sinks_fit}};
    if (loss.sinks_budget > 0) out["with_sinks"]["budget"] = loss.sinks_budget;
  }
  if (!loss.with_budget.empty()) out["with_budget"] = {{"rule", loss.with_budget}};
  return out;
}

Json to(const ExplainedBlock& block) {
  Json out = {{"first_position", block.first_position},
              {"n_tokens", block.n_tokens},
              {"written_step", block.written_step},
              {"kept_in", block.kept_in},
              {"left", Json::array()}};
  for (const ExplainedLoss& loss : block.losses) out["left"].push_back(to(loss));
  for (const ExplainedProtection& p : block.protections) {
    out["protected"].push_back(
        {{"from_step", p.from_step}, {"to_step", p.to_step < 0 ? Json(nullptr) : Json(p.to_step)}});
  }
  if (block.asked_again >= 0) {
    out["asked_again"] = block.asked_again;
    out["found_again"] = block.found_again;
    out["reclaimed"] = block.reclaimed;
  }
  return out;
}

Json to(const ExplainedSpan& span) {
  Json out = {{"sequence", span.sequence}, {"session", span.session},
              {"request", span.request},   {"turn", span.turn},
              {"answer", span.is_answer},  {"first_position", span.first_position},
              {"n_tokens", span.n_tokens}};
  if (!span.text.empty()) out["text"] = span.text;
  out["length"] = span.length;
  out["ended"] = span.has_ended;
  out["times_parked"] = span.times_parked;
  out["blocks"] = Json::array();
  for (const ExplainedBlock& block : span.blocks) out["blocks"].push_back(to(block));
  return out;
}

Json to(const ExplainedLayer& layer) {
  Json out = {{"layer", layer.layer},
              {"reason", removal_reason_name(layer.reason)},
              {"blocks", layer.blocks},
              {"first", Json::parse(to_json(layer.first.event))},
              {"worst", nullptr}};
  if (layer.is_measured) {
    out["worst"] = Json::parse(to_json(layer.worst.event));
    out["worst"]["attention"] = layer.worst.mass;
  }
  return out;
}

}  // namespace

std::string to_json(const Explanation& explanation) {
  Json out = {{"policy", explanation.policy},
              {"model", explanation.header.model},
              {"block_size", explanation.header.block_size},
              {"layers", explanation.header.n_layers},
              {"whole", explanation.extent.is_whole},
              {"summary", Json::array()},
              {"found", Json::array()}};
  for (const ExplainedLayer& layer : explanation.layers) out["summary"].push_back(to(layer));
  for (const ExplainedSpan& span : explanation.spans) out["found"].push_back(to(span));
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace paddock
