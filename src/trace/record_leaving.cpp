// What leaves the cache, written down: what rules choose among and choose, and every removal,
// budget and limit. read_leaving.cpp reads it again.
#include <bit>
#include <utility>

#include "trace/recorder.h"

namespace paddock {

using trace::Tag;

void TraceRecorder::decided(const DecisionFacts& f) noexcept {
  write(Tag::kDecision, [&] {
    const auto layer = static_cast<size_t>(f.layer);
    const auto rules = static_cast<size_t>(state_.rules(f.sequence));
    const bool is_plain = rules < plain_.size() && plain_[rules][layer] == f.schedule;
    out_.number(f.sequence);
    out_.number(f.layer);
    out_.u8(static_cast<uint8_t>((is_plain ? 1 : 0) | (f.is_replayed ? 2 : 0) |
                                 (f.runner_up_position >= 0 ? 4 : 0)));
    out_.number(f.tokens);
    out_.number(f.n_leaving);
    if (!is_plain) out_.schedule(f.schedule);
    if (f.runner_up_position >= 0) {
      out_.number(f.runner_up_position);
      out_.real(f.runner_up_score);
    }
    state_.rank = 0;
  });
}

void TraceRecorder::chose_among(std::span<const CandidateFacts> candidates) noexcept {
  write(Tag::kCandidates, [&] {
    out_.number(static_cast<int64_t>(candidates.size()));
    int64_t last = 0;
    for (const CandidateFacts& c : candidates) {
      out_.u8(static_cast<uint8_t>((c.is_protected ? 1 : 0) | (c.is_ranked ? 2 : 0)));
      out_.difference(c.first_position - std::exchange(last, c.first_position));
      out_.number(c.n_tokens);
      out_.number(c.mass);
      out_.number(c.recent_mass);
      out_.difference(c.last_used);
      out_.fixed(std::bit_cast<uint32_t>(c.key_norm), 4);
      if (c.is_ranked) out_.real(c.score);
    }
  });
}

void TraceRecorder::removed(const RemovalEvent& e) noexcept {
  ++state_.events;
  const int64_t length = e.sequence < 0 ? 0 : state_.length(e.sequence);
  const bool is_trim = is_by_score(e.reason);
  write(Tag::kRemoval, [&] {
    uint8_t flags = static_cast<uint8_t>(e.reason);
    flags |= e.idle_steps >= 0 ? trace::kIsIdle : 0;
    flags |= e.overruled ? trace::kIsOverruled : 0;
    flags |= e.retained ? trace::kIsRetained : 0;
    flags |= e.measured ? trace::kIsMeasured : 0;
    flags |= e.length != length ? trace::kHasLength : 0;
    out_.u8(flags);
    out_.number(e.layer);
    out_.number(int64_t{e.sequence} + 1);
    out_.difference(e.first_position - std::exchange(state_.last_position, e.first_position));
    out_.number(e.n_tokens);
    if (e.length != length) out_.number(e.length);
    out_.number(e.age_steps);
    if (e.idle_steps >= 0) out_.number(e.idle_steps);
    if (e.measured) {
      out_.number(e.mass);
      out_.difference(e.last_used);
    }
    if (is_trim) {
      out_.real(e.score);
      out_.number(e.sufficient_budget);
    }
    if (e.sequence < 0) {
      out_.number(e.rules);
      out_.number(e.request);
      out_.fixed(e.hash, 8);
    }
  });
}

void TraceRecorder::budget_changed(const KvBudgetChange& c) noexcept {
  write(Tag::kBudget, [&] {
    out_.number(int64_t{c.sequence} + 1);
    out_.number(c.length);
    out_.number(c.before);
    out_.number(c.after);
    out_.number(c.request);
    out_.number(c.scored_from);
    out_.number(c.pages);
    out_.number(static_cast<int64_t>(c.layer_pages.size()));
    for (const int64_t pages : c.layer_pages) out_.number(pages);
  });
}

void TraceRecorder::preempted(const KvPreemption& p) noexcept {
  write(Tag::kPreemption, [&] {
    out_.number(p.sequence);
    out_.number(p.parked);
    out_.number(p.session);
    out_.number(p.request);
    out_.number(p.tokens);
    out_.number(p.pages);
    out_.number(state_.events - static_cast<int64_t>(p.first_event));
  });
}

void TraceRecorder::limited(int64_t pages) noexcept {
  write(Tag::kLimit, [&] { out_.number(pages); });
}

void TraceRecorder::violated(std::string_view what) noexcept {
  write(Tag::kViolation, [&] { out_.text(what); });
}

void TraceRecorder::fell_short() noexcept {
  write(Tag::kShortfall, [] {});
}

}  // namespace paddock
