// What texts had in each layer, and what left them.
#include <algorithm>

#include "diagnose/run_record.h"

namespace paddock {
namespace {

BlockFate fate_of(RemovalReason reason) {
  switch (reason) {
    case RemovalReason::kWindow:
      return BlockFate::kWindow;
    case RemovalReason::kPolicyTrim:
      return BlockFate::kTrimmed;
    case RemovalReason::kUser:
      return BlockFate::kTaken;
    case RemovalReason::kCapacity:
    case RemovalReason::kSequenceEnd:
    case RemovalReason::kPreempt:
      return BlockFate::kResident;  // while the text was there
  }
  return BlockFate::kResident;
}

}  // namespace

// ---- texts

void RunRecord::put(Text& text, size_t layer, int64_t first, int64_t count, int sign) {
  Layer& its = text.layers.at(layer);
  const int64_t end = first + count;
  for (int64_t at = first; at < end;) {
    const int64_t block = at / header.block_size;
    const int64_t stop = std::min(end, (block + 1) * header.block_size);
    const auto i = static_cast<size_t>(block);
    if (its.tokens.size() <= i) {
      its.tokens.resize(i + 1);
      its.fates.resize(i + 1, BlockFate::kAbsent);
    }
    const int32_t before = its.tokens[i];
    its.tokens[i] = std::max<int32_t>(0, before + sign * static_cast<int32_t>(stop - at));
    if (sign > 0) its.fates[i] = BlockFate::kResident;
    const int64_t change = its.tokens[i] - before;
    entry_tokens_ += change;
    resident_[layer] += change;
    const int entry = (its.tokens[i] > 0 ? 1 : 0) - (before > 0 ? 1 : 0);
    entries_ += entry;
    text.entries += entry;
    at = stop;
  }
}

void RunRecord::on(const TraceOpen& o) {
  Text& text = texts_[o.sequence];
  text = {};
  text.is_pin = o.is_pin;
  text.rules = o.rules;
  text.layers.resize(static_cast<size_t>(header.n_layers));
}

void RunRecord::keep_map(const Text& text) {
  if (text.is_pin || text.length <= map_length) return;
  map_length = text.length;
  map.clear();
  for (const Layer& layer : text.layers) map.push_back(layer.fates);
}

void RunRecord::on(const TraceClose& c) {
  const auto at = texts_.find(c.sequence);
  if (at == texts_.end()) return;
  if (c.reason == RemovalReason::kPreempt) {
    ++n.preemptions;
    short_of_pages(at->second.owner);
  }
  keep_map(at->second);
  for (size_t i = 0; i < at->second.layers.size(); ++i) {
    for (size_t block = 0; block < at->second.layers[i].tokens.size(); ++block) {
      const int32_t tokens = at->second.layers[i].tokens[block];
      put(at->second, i, static_cast<int64_t>(block) * header.block_size, tokens, -1);
    }
  }
  texts_.erase(at);
}

void RunRecord::on(const TraceFork& f) {
  const Text from = texts_[f.from];
  Text& to = texts_[f.to];
  to.length = from.length;
  to.blocks = from.blocks;
  to.ids = from.ids;
  to.rules = from.rules;
  to.layers.resize(from.layers.size());
  for (size_t i = 0; i < from.layers.size(); ++i) {
    for (size_t block = 0; block < from.layers[i].tokens.size(); ++block) {
      put(to, i, static_cast<int64_t>(block) * header.block_size, from.layers[i].tokens[block], 1);
    }
    to.layers[i].fates = from.layers[i].fates;
    to.layers[i].tokens.resize(to.layers[i].fates.size());
  }
}

void RunRecord::on(const TraceCommit& c) {
  Text& text = texts_[c.sequence];
  n.tokens += c.n_tokens;
  step_tokens_ += c.n_tokens;
  for (size_t i = 0; i < text.layers.size(); ++i) {
    put(text, i, c.length - c.n_tokens, c.n_tokens, 1);
  }
  text.length = c.length;
  n.longest = std::max(n.longest, text.length);
  if (text.lost_start) lost_start.went_on = true;
  note_beyond(text);
}

/// In how many layers queries meet keys farther away than the model is made for.
void RunRecord::note_beyond(const Text& text) {
  if (header.model_context <= 0 || text.length <= header.model_context) return;
  int64_t beyond = 0;
  for (const TraceRules::Layer& rule : rules_[text.rules].layers) {
    const TokenVisibility& sees = rule.visibility;
    const bool near = rule.is_compact ||
                      (sees.bounded() && sees.sinks == 0 && sees.window <= header.model_context);
    beyond += near ? 0 : 1;
  }
  n.beyond_layers = std::max(n.beyond_layers, beyond);
}

void RunRecord::on(const TraceTokens& t) {
  Text& text = texts_[t.sequence];
  if (t.first_position > static_cast<int64_t>(text.ids.size())) return;
  text.ids.resize(static_cast<size_t>(t.first_position));
  text.ids.insert(text.ids.end(), t.ids.begin(), t.ids.end());
  if (text.ids.size() > kMostIds) text.ids.resize(kMostIds);
  note_prompt(text);
}

void RunRecord::on(const TraceBlock& b) {
  Text& text = texts_[b.sequence];
  const auto known = last_step_.find(b.hash);
  if (known != last_step_.end()) add_to(reuse_gaps, step_ - known->second);
  last_step_[b.hash] = step_;
  if (b.block > static_cast<int64_t>(text.blocks.size())) return;  // some were not told
  text.blocks.resize(static_cast<size_t>(b.block));
  text.blocks.push_back(b.hash);
  note_prompt(text);
}

void RunRecord::on(const TracePrefix& p) {
  n.lookups += p.lookups;
  n.hits += p.hits;
  texts_[p.sequence].length = p.to;
  n.longest = std::max(n.longest, p.to);
}

void RunRecord::on(const TraceListed& l) {
  Text& text = texts_[l.sequence];
  put(text, static_cast<size_t>(l.layer), l.first_position, l.n_tokens, 1);
}

void RunRecord::on(const TraceMiss& m) {
  n.lookups += m.lookups;
  n.regrets += m.regrets;
  texts_[m.sequence].misses.push_back(m.miss);
}

void RunRecord::on(const TraceCut& c) {
  Text& text = texts_[c.sequence];
  const auto blocks = static_cast<size_t>((c.length + header.block_size - 1) / header.block_size);
  for (Layer& layer : text.layers) {  // also what is kept for reuse, and so told as no removal
    for (size_t block = blocks; block < layer.fates.size(); ++block) {
      BlockFate& fate = layer.fates[block];
      if (fate == BlockFate::kResident) fate = BlockFate::kTaken;
    }
  }
  keep_map(text);
  for (size_t i = 0; i < text.layers.size(); ++i) {
    Layer& layer = text.layers[i];
    for (size_t block = 0; block < layer.tokens.size(); ++block) {
      const int64_t first = static_cast<int64_t>(block) * header.block_size;
      const int64_t stays = std::max<int64_t>(0, c.length - first);
      const int64_t goes = layer.tokens[block] - std::min<int64_t>(layer.tokens[block], stays);
      put(text, i, first, goes, -1);
    }
    if (layer.tokens.size() > blocks) {
      layer.tokens.resize(blocks);
      layer.fates.resize(blocks);
    }
  }
  text.length = c.length;
  text.blocks.resize(
      std::min(text.blocks.size(), static_cast<size_t>(c.length / header.block_size)));
  text.ids.resize(std::min(text.ids.size(), static_cast<size_t>(c.length)));
}

void RunRecord::on(const TracePassed& p) {
  put(texts_[p.sequence], static_cast<size_t>(p.layer), p.first_position, p.n_tokens, -1);
}

// ---- what leaves

void RunRecord::on(const TraceRefusal& r) {
  ++n.refusals;
  short_of_pages(texts_[r.sequence].owner);
}

void RunRecord::on(const TraceRemoval& r) {
  const KvEvent& e = r.event;
  ++n.removed[e.reason];
  add_to(lives[e.reason], e.age_steps);
  ++losses[{e.reason, e.layer, e.sequence}];
  if (e.sequence < 0) return;
  Text& text = texts_[e.sequence];
  const auto layer = static_cast<size_t>(e.layer);
  if (e.reason == RemovalReason::kSequenceEnd || e.reason == RemovalReason::kPreempt) {
    keep_map(text);
  }
  put(text, layer, e.first_position, e.n_tokens, -1);
  text.layers.at(layer).fates.at(static_cast<size_t>(e.first_position / header.block_size)) =
      fate_of(e.reason);
  const std::vector<TraceRules::Layer>& rules = rules_[text.rules].layers;
  if (layer >= rules.size()) return;
  if (is_by_score(e.reason)) {
    ++left_[layer];
    if (rules[layer].is_elastic) {
      ++n.elastic_trims;
      n.context_trims += text.fell_for_context ? 1 : 0;
    } else {
      worst_budget = std::max(worst_budget, e.sufficient_budget);
    }
  } else if (e.reason == RemovalReason::kWindow) {
    ++left_[layer];
    if (e.first_position == 0) lose_start(text, rules[layer], e);
  }
}

void RunRecord::lose_start(Text& text, const TraceRules::Layer& rule, const KvEvent& e) {
  text.lost_start = true;
  lost_start.window = std::max(lost_start.window, rule.visibility.window);
  lost_start.lengths.try_emplace(e.layer, e.length);
  const Request* request = request_of(text.request);
  if (lost_start.prompt_tokens > 0 || request == nullptr) return;
  lost_start.prompt_tokens = request->prompt_tokens;
}

void RunRecord::on(const TraceBudget& b) {
  if (b.change.after == kUnlimited) {
    ++n.lifts;
    return;
  }
  ++n.falls;
  const auto at = texts_.find(b.change.sequence);
  if (at != texts_.end() && is_for_context(at->second, b.change)) {
    ++n.context_falls;
    at->second.fell_for_context = true;
    return;
  }
  short_of_pages(at == texts_.end() ? RunOwner() : at->second.owner);
}

/// Whether a text had come as far as the context, which bounds what may be resident where a rule
/// makes room within it: no larger pool would have kept the budget up. Its first fall, for itself,
/// at the last length at which its rule decides before the context ends.
bool RunRecord::is_for_context(const Text& text, const KvBudgetChange& change) const {
  if (change.before != kUnlimited || change.request != text.request) return false;
  const auto rules = rules_.find(text.rules);
  if (rules == rules_.end()) return false;
  const std::vector<TraceRules::Layer>& layers = rules->second.layers;
  return std::any_of(layers.begin(), layers.end(), [&](const TraceRules::Layer& layer) {
    return layer.is_elastic && layer.is_compact &&
           header.context - change.length < layer.schedule.every;
  });
}

void RunRecord::on(const TraceViolation& v) {
  ++(v.what.empty() ? n.shortfalls : n.violations);
  if (!v.what.empty()) last_violation = v.what;
}

}  // namespace paddock
