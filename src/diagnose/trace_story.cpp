#include "diagnose/trace_story.h"

#include <algorithm>
#include <utility>

namespace paddock {
namespace {

/// Whether a text goes on without it.
bool is_loss(RemovalReason reason) { return is_by_rule(reason) || reason == RemovalReason::kUser; }

}  // namespace

TraceStory::Text& TraceStory::at(int32_t sequence) {
  const auto known = open_.find(sequence);
  if (known != open_.end()) return texts[known->second];
  open_[sequence] = texts.size();
  Text& text = texts.emplace_back();
  text.sequence = sequence;
  text.had.resize(static_cast<size_t>(header.n_layers));
  return text;
}

void TraceStory::list(Text& text, size_t layer, int64_t first, int64_t end) {
  const int64_t block = std::max(1, header.block_size);
  for (int64_t p = first / block * block; p < end; p += block) text.had[layer].insert(p);
}

void TraceStory::grow(Text& text, int64_t length, int64_t step) {
  text.length = length;
  text.longest = std::max(text.longest, length);
  const int64_t known = text.written.empty() ? 0 : text.written.back().first;
  if (length > known) text.written.emplace_back(length, step);
}

void TraceStory::cut(Text& text, int64_t length) {
  const auto n = static_cast<size_t>(length);
  text.length = length;
  if (text.ids.size() > n) text.ids.resize(n);
  while (!text.written.empty() && text.written.back().first > length) {
    const auto [end, step] = text.written.back();
    text.written.pop_back();
    const int64_t before = text.written.empty() ? 0 : text.written.back().first;
    if (before < length) text.written.emplace_back(length, step);
  }
  const size_t full = n / static_cast<size_t>(std::max(1, header.block_size));
  if (text.blocks.size() > full) text.blocks.resize(full);
  for (std::set<int64_t>& its : text.had) its.erase(its.lower_bound(length), its.end());
  std::erase_if(text.losses,
                [&](const Loss& loss) { return loss.removal.event.first_position >= length; });
  std::erase_if(text.lost, [&](const auto& lost) { return lost.second >= length; });
}

void TraceStory::take(const TraceRecord& record) {
  const auto& what = record.what;
  if (const auto* h = std::get_if<TraceHeader>(&what)) {
    header = *h;
  } else if (const auto* r = std::get_if<TraceRules>(&what)) {
    if (r->number == 0) rules = *r;
  } else if (const auto* request = std::get_if<TraceRequest>(&what)) {
    const int64_t turn = request->session == 0 ? 1 : ++turns_[request->session];
    requests[request->request] = {request->session, turn, request->begin, request->prompt_tokens,
                                  0};
  } else if (const auto* finish = std::get_if<TraceFinish>(&what)) {
    requests[finish->request].made_tokens = finish->made_tokens;
  } else if (const auto* piece = std::get_if<TracePiece>(&what)) {
    pieces[piece->id] = piece->bytes;
  } else if (const auto* decision = std::get_if<TraceDecision>(&what)) {
    decision_ = *decision;
  } else if (const auto* budget = std::get_if<TraceBudget>(&what)) {
    if (budget->change.after != kUnlimited) {
      falls_[budget->change.sequence] = budget->change.request;
    }
  } else if (const auto* removal = std::get_if<TraceRemoval>(&what)) {
    take_removal(record, *removal);
  } else {
    take_text(record);
  }
}

void TraceStory::take_text(const TraceRecord& record) {
  const auto& what = record.what;
  if (const auto* o = std::get_if<TraceOpen>(&what)) {
    at(o->sequence).is_pin = o->is_pin;  // who had the number before has closed
  } else if (const auto* c = std::get_if<TraceClose>(&what)) {
    Text& text = at(c->sequence);
    text.is_parked = c->reason == RemovalReason::kPreempt;
    text.has_ended = !text.is_parked;
    text.times_parked += text.is_parked ? 1 : 0;
    open_.erase(c->sequence);
  } else if (const auto* f = std::get_if<TraceFork>(&what)) {
    Text fork = at(f->from);
    fork.sequence = f->to;
    fork.owners.clear();
    at(f->to) = std::move(fork);
  } else if (const auto* commit = std::get_if<TraceCommit>(&what)) {
    Text& text = at(commit->sequence);
    falls_.erase(commit->sequence);
    for (size_t layer = 0; layer < text.had.size(); ++layer) {
      list(text, layer, commit->length - commit->n_tokens, commit->length);
    }
    grow(text, commit->length, record.step);
  } else if (const auto* p = std::get_if<TracePrefix>(&what)) {
    Text& text = at(p->sequence);
    text.found = p->to;
    grow(text, p->to, record.step);
  } else if (const auto* l = std::get_if<TraceListed>(&what)) {
    list(at(l->sequence), static_cast<size_t>(l->layer), l->first_position,
         l->first_position + l->n_tokens);
  } else if (const auto* t = std::get_if<TraceTokens>(&what)) {
    const int64_t longest = at(t->sequence).longest;
    std::vector<int32_t>& ids = at(t->sequence).ids;
    ids.resize(static_cast<size_t>(std::clamp<int64_t>(t->first_position, 0, longest)), -1);
    ids.insert(ids.end(), t->ids.begin(), t->ids.end());
  } else if (const auto* b = std::get_if<TraceBlock>(&what)) {
    Text& text = at(b->sequence);
    const int64_t end = (b->block + 1) * header.block_size;
    if (b->block < static_cast<int64_t>(text.blocks.size())) return;
    if (b->block > static_cast<int64_t>(text.blocks.size())) return;  // some were not told
    text.blocks.push_back({b->hash, end <= text.found});
  } else if (const auto* cut_off = std::get_if<TraceCut>(&what)) {
    cut(at(cut_off->sequence), cut_off->length);
  } else if (const auto* r = std::get_if<TraceRun>(&what)) {
    take_run(*r, record.step);
  } else if (const auto* kept = std::get_if<TraceProtection>(&what)) {
    at(kept->sequence).protections.push_back({record.step, kept->ranges});
  }
}

void TraceStory::take_run(const TraceRun& run, int64_t step) {
  Text& now = at(run.sequence);
  for (size_t i = texts.size(); i-- > 0;) {
    Text& before = texts[i];
    if (!before.is_parked || before.owners.empty() || !now.owners.empty()) continue;
    const Owner& owner = before.owners.back();
    const bool is_same = run.session != 0 ? owner.session == run.session
                                          : run.request != 0 && owner.request == run.request;
    if (!is_same) continue;
    // It is read again: only where it lies is new.
    before.is_parked = false;
    before.sequence = run.sequence;
    before.length = now.length;
    // What is protected was told anew, for it may have changed meanwhile.
    before.protections.push_back({step, now.protections.empty()
                                            ? std::vector<TraceProtection::Range>()
                                            : now.protections.back().ranges});
    now.is_part = true;
    open_[run.sequence] = i;
    before.owners.push_back({before.length, run.request, run.session});
    return;
  }
  now.owners.push_back({now.length, run.request, run.session});
}

void TraceStory::take_removal(const TraceRecord& record, const TraceRemoval& removal) {
  const KvEvent& e = removal.event;
  const auto same = [&](const ExplainedLayer& l) {
    return l.layer == e.layer && l.reason == e.reason;
  };
  auto layer = std::find_if(layers.begin(), layers.end(), same);
  if (layer == layers.end()) {
    layer = layers.insert(layers.end(), ExplainedLayer{e.layer, e.reason, 0, removal, {}, false});
  }
  ++layer->blocks;
  if (removal.measured && (!layer->is_measured || removal.mass > layer->worst.mass)) {
    layer->worst = removal;
    layer->is_measured = true;
  }
  if (e.sequence < 0) {
    reclaimed[removal.text_hash] += e.reason == RemovalReason::kCapacity ? 1 : 0;
    return;
  }
  Text& text = at(e.sequence);
  if (!is_loss(e.reason)) return;
  if (!text.lost.insert({e.layer, e.first_position}).second) return;  // it is read again
  Loss loss{removal, record.seconds, text.owners.empty() ? 0 : text.owners.back().request,
            {},      false,          0};
  if (is_by_score(e.reason)) {
    loss.schedule = decision_.schedule;
    const auto fall = falls_.find(e.sequence);
    loss.by_fall = fall != falls_.end();
    loss.needed_by = loss.by_fall ? fall->second : 0;
  }
  text.losses.push_back(std::move(loss));
}

}  // namespace paddock
