// What a trace says of a text, a position, a turn: where it lay, what left of it, and what would
// have kept it.
#include "paddock/explain.h"

#include <algorithm>
#include <functional>

#include "core/fail.h"
#include "core/search.h"
#include "diagnose/kept_by.h"
#include "diagnose/trace_story.h"

namespace paddock {
namespace {

using Text = TraceStory::Text;

struct Range {
  int64_t first, end;
};

/// Where `wanted` occurs in the text, as ranges of positions.
std::vector<Range> find_text(const TraceStory& story, const Text& text, const std::string& wanted) {
  std::string all;
  std::vector<size_t> begins;  // of each position's piece
  for (const int32_t id : text.ids) {
    begins.push_back(all.size());
    const auto piece = story.pieces.find(id);
    all += piece == story.pieces.end() ? std::string() : piece->second;
  }
  std::vector<Range> found;
  const auto position_of = [&](size_t byte) {  // whose piece has it
    return std::upper_bound(begins.begin(), begins.end(), byte) - begins.begin() - 1;
  };
  for (size_t at = all.find(wanted); at != std::string::npos;
       at = all.find(wanted, at + wanted.size())) {
    found.push_back({position_of(at), position_of(at + wanted.size() - 1) + 1});
  }
  return found;
}

std::string text_of(const TraceStory& story, const Text& text, const Range& range) {
  std::string out;
  for (int64_t p = range.first; p < std::min(range.end, static_cast<int64_t>(text.ids.size()));
       ++p) {
    const auto piece = story.pieces.find(text.ids[static_cast<size_t>(p)]);
    if (piece != story.pieces.end()) out += piece->second;
  }
  return out;
}

/// The request whose prompt or answer has the position.
const TraceStory::Request* request_at(const TraceStory& story, const Text& text, int64_t position,
                                      int64_t& number) {
  const TraceStory::Request* last = nullptr;
  for (const TraceStory::Owner& owner : text.owners) {
    const auto at = story.requests.find(owner.request);
    if (at == story.requests.end() || position < at->second.begin) continue;
    last = &at->second;
    number = owner.request;
  }
  return last;
}

/// The requests that it served, each once.
std::vector<const TraceStory::Request*> requests_of(const TraceStory& story, const Text& text) {
  std::vector<const TraceStory::Request*> requests;
  int64_t last = 0;
  for (const TraceStory::Owner& owner : text.owners) {
    const auto at = story.requests.find(owner.request);
    if (at == story.requests.end() || owner.request == last) continue;
    last = owner.request;
    requests.push_back(&at->second);
  }
  return requests;
}

std::vector<ExplainedTurn> turns_of(const TraceStory& story, const Text& text) {
  std::vector<ExplainedTurn> turns;
  for (const TraceStory::Request* request : requests_of(story, text)) {
    turns.push_back({request->begin, request->prompt_tokens});
  }
  return turns;
}

/// What was said and answered in a turn.
std::vector<Range> find_turn(const TraceStory& story, const Text& text, int64_t turn) {
  std::vector<Range> found;
  for (const TraceStory::Request* request : requests_of(story, text)) {
    const int64_t end = std::min(text.longest, request->prompt_tokens + request->made_tokens);
    if (request->turn == turn && request->begin < end) found.push_back({request->begin, end});
  }
  return found;
}

std::vector<Range> find_ranges(const TraceStory& story, const Text& text,
                               const ExplainQuery& query) {
  std::vector<Range> ranges = {{0, text.longest}};
  const auto narrow = [&](const std::vector<Range>& to) {
    std::vector<Range> both;
    for (const Range& a : ranges) {
      for (const Range& b : to) {
        const Range range{std::max(a.first, b.first), std::min(a.end, b.end)};
        if (range.first < range.end) both.push_back(range);
      }
    }
    ranges = std::move(both);
  };
  if (query.turn) narrow(find_turn(story, text, *query.turn));
  if (query.position) narrow({{*query.position, *query.position + 1}});
  if (!query.text.empty()) narrow(find_text(story, text, query.text));
  return ranges;
}

class Explainer {
 public:
  Explainer(const TraceStory& story, const ExplainQuery& query) : story_(story), query_(query) {
    for (size_t i = 0; i < story.texts.size(); ++i) {
      if (story.texts[i].is_part) continue;
      for (const TraceStory::FullBlock& block : story.texts[i].blocks) {
        by_hash_[block.hash].push_back({i, block.is_found});
      }
    }
  }

  ExplainedSpan span(size_t i, const Range& range) const {
    const Text& text = story_.texts[i];
    ExplainedSpan span;
    span.sequence = text.sequence;
    if (!text.owners.empty()) span.session = text.owners.back().session;
    const TraceStory::Request* request = request_at(story_, text, range.first, span.request);
    if (request != nullptr) {
      span.turn = request->turn;
      span.is_answer = range.first >= request->prompt_tokens;
    }
    span.first_position = range.first;
    span.n_tokens = range.end - range.first;
    span.text = text_of(story_, text, range);
    span.length = text.longest;
    span.has_ended = text.has_ended;
    span.times_parked = text.times_parked;
    if (story_.header.has_tokens) span.tokens = text.ids;
    span.turns = turns_of(story_, text);
    // Whoever asks for no place in particular is told of what left.
    const bool losses_only = query_.text.empty() && !query_.position && !query_.turn;
    const int64_t size = story_.header.block_size;
    for (int64_t p = range.first / size * size; p < range.end; p += size) {
      ExplainedBlock block = explain_block(i, p);
      if (!losses_only || !block.losses.empty()) span.blocks.push_back(std::move(block));
    }
    return span;
  }

 private:
  struct Place {
    size_t text;
    bool is_found;
  };

  ExplainedBlock explain_block(size_t i, int64_t first) const {
    const Text& text = story_.texts[i];
    const int64_t size = story_.header.block_size;
    ExplainedBlock block;
    block.first_position = first;
    block.n_tokens = static_cast<int32_t>(std::min(size, text.longest - first));
    for (const auto& [end, step] : text.written) {
      block.written_step = step;
      if (end > first) break;
    }
    // They stand in the order of time.
    for (const TraceStory::Loss& loss : text.losses) {
      const KvEvent& e = loss.removal.event;
      if (e.first_position < first || e.first_position >= first + size) continue;
      if (query_.layer && e.layer != *query_.layer) continue;
      block.losses.push_back(explain_loss(text, loss));
    }
    for (int32_t layer = 0; layer < story_.header.n_layers; ++layer) {
      if (query_.layer && layer != *query_.layer) continue;
      const bool is_lost =
          std::any_of(block.losses.begin(), block.losses.end(),
                      [&](const ExplainedLoss& loss) { return loss.removal.event.layer == layer; });
      const bool was_there = text.had[static_cast<size_t>(layer)].contains(first);
      if (was_there && !is_lost) block.kept_in.push_back(layer);
    }
    block.protections = protections_of(text, first, first + size);
    count_again(i, first / size, block);
    return block;
  }

  /// When the host protected any of these positions.
  static std::vector<ExplainedProtection> protections_of(const Text& text, int64_t first,
                                                         int64_t end) {
    std::vector<ExplainedProtection> out;
    bool is_on = false;
    for (const Text::Protected& told : text.protections) {
      const bool meets =
          std::any_of(told.ranges.begin(), told.ranges.end(), [&](const auto& range) {
            return range.first_position < end && first < range.first_position + range.n_tokens;
          });
      if (meets && !is_on) out.push_back({told.step, -1});
      if (!meets && is_on) out.back().to_step = told.step;
      is_on = meets;
    }
    return out;
  }

  void count_again(size_t i, int64_t n, ExplainedBlock& block) const {
    const std::vector<TraceStory::FullBlock>& blocks = story_.texts[i].blocks;
    if (n >= static_cast<int64_t>(blocks.size())) {
      block.asked_again = -1;
      return;
    }
    const uint64_t hash = blocks[static_cast<size_t>(n)].hash;
    for (const Place& place : by_hash_.at(hash)) {
      if (place.text <= i) continue;
      ++block.asked_again;
      block.found_again += place.is_found ? 1 : 0;
    }
    const auto gone = story_.reclaimed.find(hash);
    block.reclaimed = gone == story_.reclaimed.end() ? 0 : gone->second;
  }

  ExplainedLoss explain_loss(const Text& text, const TraceStory::Loss& loss) const {
    ExplainedLoss out;
    out.removal = loss.removal;
    out.seconds = loss.seconds;
    out.request = loss.request;
    out.turn = story_.turn_of(loss.request);
    out.schedule = loss.schedule;
    out.by_fall = loss.by_fall;
    out.needed_by = loss.needed_by;
    const KvEvent& e = loss.removal.event;
    const RuleAt rule{e.policy, e.layer, story_.header.n_layers, story_.header.block_size};
    if (is_by_score(e.reason)) {
      const KeptBySinks sinks = kept_by_sinks(rule, loss.schedule.budget, e);
      out.with_sinks = sinks.rule;
      out.sinks = sinks.sinks;
      out.sinks_fit = sinks.fits;
      out.sinks_budget = sinks.budget;
      out.with_budget = kept_by_budget(rule, e.sufficient_budget);
    } else if (e.reason == RemovalReason::kWindow) {
      out.sinks = e.first_position + e.n_tokens;
      out.sinks_fit = true;
      out.with_sinks = kept_by_window_sinks(rule, out.sinks);
      out.with_budget = kept_by_window(rule, text.longest - e.first_position);
    }
    return out;
  }

  const TraceStory& story_;
  const ExplainQuery& query_;
  std::map<uint64_t, std::vector<Place>> by_hash_;
};

void check(const TraceStory& story, const ExplainQuery& query, const std::string& name) {
  if (!query.text.empty() && !story.header.has_tokens) {
    fail(ErrorCode::kInvalidArgument,
         "'{}' has no tokens, so no text can be found in it; record it with --trace-tokens, or ask "
         "for a position or a turn",
         name);
  }
  const int32_t layer = query.layer.value_or(0);
  if (layer < 0 || layer >= std::max(1, story.header.n_layers)) {
    fail(ErrorCode::kInvalidArgument, "there is no layer {}; the trace's go from 0 to {}", layer,
         story.header.n_layers - 1);
  }
  if (query.position && *query.position < 0) {
    fail(ErrorCode::kInvalidArgument, "the position is {}; it must be 0 or more", *query.position);
  }
  if (query.turn && *query.turn < 1) {
    fail(ErrorCode::kInvalidArgument, "the turn is {}; it must be 1 or more", *query.turn);
  }
}

Explanation answer(TraceStory& story, const TraceExtent& extent, const std::string& name,
                   const ExplainQuery& query) {
  check(story, query, name);
  Explanation out;
  out.header = story.header;
  out.extent = extent;
  out.policy = story.rules.policy;
  out.layers = story.layers;
  std::sort(out.layers.begin(), out.layers.end(), [](const auto& a, const auto& b) {
    return std::pair(a.layer, a.reason) < std::pair(b.layer, b.reason);
  });
  const bool asks =
      !query.text.empty() || query.position || query.turn || query.layer || query.sequence;
  if (!asks || story.header.block_size < 1) return out;
  const Explainer explainer(story, query);
  for (size_t i = 0; i < story.texts.size(); ++i) {
    const Text& text = story.texts[i];
    if (text.is_pin || text.is_part) continue;
    if (query.sequence && text.sequence != *query.sequence) continue;
    for (const Range& range : find_ranges(story, text, query)) {
      out.spans.push_back(explainer.span(i, range));
    }
  }
  return out;
}

}  // namespace

Explanation explain(const std::string& path, const ExplainQuery& query) {
  TraceStory story;
  const TraceExtent extent =
      read_trace(path, [&](const TraceRecord& record) { story.take(record); });
  return answer(story, extent, path, query);
}

Explanation explain(std::string_view bytes, const std::string& name, const ExplainQuery& query) {
  TraceStory story;
  const TraceExtent extent =
      read_trace(bytes, name, [&](const TraceRecord& record) { story.take(record); });
  return answer(story, extent, name, query);
}

}  // namespace paddock
