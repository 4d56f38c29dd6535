#include "advise_measure.h"

#include <algorithm>

#include "measuring.h"

namespace cli {
namespace {

/// Of one user alone.
paddock::EngineOptions for_one(const Candidate& candidate, int64_t positions) {
  paddock::EngineOptions options = candidate.options;
  options.kv.budget_bytes /= static_cast<uint64_t>(options.max_sequences);
  options.max_sequences = 1;
  options.context = std::max(options.context, positions);
  options.kv.reuse = false;
  return options;
}

/// What `measure` finds, or nothing if it was cancelled for want of time.
template <typename Measure>
auto unless_cancelled(const Measure& measure) -> std::optional<decltype(measure())> {
  try {
    return measure();
  } catch (const paddock::Error& e) {
    if (e.code() == paddock::ErrorCode::kCancelled) return std::nullopt;
    throw;
  }
}

}  // namespace

Sample Sample::first(int64_t n) const {
  Sample part;
  part.facts = facts;
  n = std::min(n, static_cast<int64_t>(tokens.size()));
  part.tokens.assign(tokens.begin(), tokens.begin() + n);
  for (const paddock::CompareTurn& turn : turns) {
    if (turn.end <= n) part.turns.push_back(turn);
  }
  return part;
}

TimeLimit::TimeLimit(double seconds) : begin_(Clock::now()), seconds_(seconds) {}

TimeLimit TimeLimit::part(double share) const {
  TimeLimit limit = *this;
  limit.seconds_ *= share;
  return limit;
}

bool TimeLimit::is_over() const { return InterruptGuard::interrupted() || seconds_left() <= 0; }

double TimeLimit::seconds_left() const { return seconds_ - seconds_since(begin_); }

std::optional<Speed> measure_speed(const std::shared_ptr<const paddock::Model>& model,
                                   const Candidate& candidate, const Sample& sample,
                                   const TimeLimit& time) {
  if (time.is_over()) return std::nullopt;
  const auto all = std::span(sample.tokens);
  paddock::Engine engine(model, for_one(candidate, static_cast<int64_t>(all.size())));
  const InterruptGuard guard(engine);
  return unless_cancelled([&] {
    const auto check = [&] {
      if (time.is_over()) throw paddock::Error(paddock::ErrorCode::kCancelled, "no time is left");
    };
    const paddock::SessionId warm = engine.open_session();
    engine.feed(warm, all.first(1));
    engine.close_session(warm);
    const paddock::SessionId session = engine.open_session();
    const size_t n_prompt = all.size() - kOneByOne;
    const size_t batch = static_cast<size_t>(candidate.options.batch_size);
    Clock::time_point begin = Clock::now();
    for (size_t fed = 0; fed < n_prompt; fed += batch) {
      engine.feed(session, all.subspan(fed, std::min(batch, n_prompt - fed)),
                  static_cast<int64_t>(n_prompt));
      check();
    }
    Speed speed;
    speed.prefill_rate = static_cast<double>(n_prompt) / seconds_since(begin);
    begin = Clock::now();
    for (size_t i = n_prompt; i < all.size(); ++i) {
      engine.feed(session, all.subspan(i, 1));
      check();
    }
    speed.decode_rate = static_cast<double>(kOneByOne) / seconds_since(begin);
    return speed;
  });
}

void measure_quality(const std::shared_ptr<const paddock::Model>& model,
                     std::span<Candidate* const> candidates, const Sample& sample,
                     const TimeLimit& time, std::optional<Quality>& full) {
  if (time.is_over()) return;
  auto positions = static_cast<int64_t>(sample.tokens.size());
  if (!sample.facts.empty()) {
    positions += paddock::recall_tokens(*model->tokenizer(), sample.facts);
  }
  paddock::QualityOptions options;
  options.engine = candidates[0]->options;
  options.engine.kv = {};
  options.engine.max_sequences = 1;
  options.engine.context = positions;
  for (const Candidate* c : candidates) options.other_engines.push_back(for_one(*c, positions));
  paddock::QualityMeter meter(model, options);
  const InterruptGuard guard([&meter] { meter.cancel(); });
  const auto goes_on = [&](double) { return !time.is_over(); };
  std::vector<Quality> found(candidates.size() + 1);
  try {
    paddock::CompareOptions compare;
    compare.turns = sample.turns;
    compare.prompt_tokens = sample.prompt_tokens();
    compare.on_progress = goes_on;
    std::vector<Nearness> near(candidates.size());
    compare.on_position = [&](int64_t at, std::span<const paddock::PositionQuality> rules) {
      for (size_t i = 0; at >= compare.prompt_tokens && i < near.size(); ++i) {
        near[i].add(rules[i + 1]);
      }
      return true;
    };
    const paddock::QualityReport report = meter.compare(sample.tokens, compare);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const paddock::PolicyQuality& own = report.contenders[i];
      found[i + 1] = {near[i].mean(near[i].kl), near[i].mean(static_cast<double>(near[i].agreed)),
                      own.kept.mean < report.baseline.kept.mean, std::nullopt};
    }
    if (!sample.facts.empty()) {
      const paddock::RecallReport recall =
          meter.recall(sample.tokens, sample.facts, {.on_progress = goes_on});
      found[0].recalled = recall.baseline.recalled;
      for (size_t i = 0; i < candidates.size(); ++i) {
        found[i + 1].recalled = recall.contenders[i].recalled;
      }
    }
  } catch (const paddock::Error& e) {
    if (e.code() != paddock::ErrorCode::kCancelled) throw;
    return;
  }
  full = found[0];
  for (size_t i = 0; i < candidates.size(); ++i) candidates[i]->quality = found[i + 1];
}

std::vector<ParallelRow> measure_batches(const std::shared_ptr<const paddock::Model>& model,
                                         const Room& room, const Candidate& candidate,
                                         const std::vector<int>& parallel, int prompt,
                                         const TimeLimit& time) {
  ParallelBench bench;
  bench.prompt = prompt;
  bench.generate = kOneByOne;
  bench.repetitions = 1;
  std::vector<ParallelRow> rows;
  for (const int n : parallel) {
    if (time.is_over()) break;
    paddock::EngineOptions options = candidate.options;
    options.max_sequences = n;
    if (room.memory) {
      options.kv.budget_bytes = *room.memory;
    } else if (const auto planned = plan_candidate(room, options); !planned || !planned->fits) {
      continue;
    }
    const auto begin = Clock::now();
    try {
      rows.push_back(measure_parallel(bench, n, options, model));
    } catch (const paddock::Error& e) {
      if (e.code() == paddock::ErrorCode::kOutOfMemory) continue;
      if (e.code() == paddock::ErrorCode::kCancelled) break;
      throw;
    }
    // The next one takes twice as long.
    if (2 * seconds_since(begin) > time.seconds_left()) break;
  }
  return rows;
}

}  // namespace cli
