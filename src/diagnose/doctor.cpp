// A trace's diagnosis: its figures, its causes, and what other sizes of the pool would have found.
#include "paddock/doctor.h"

#include <algorithm>

#include "core/fail.h"
#include "diagnose/doctor_causes.h"

namespace paddock {
namespace {

double as_double(int64_t n) { return static_cast<double>(n); }

std::vector<DoctorFigure> figures_of(const RunRecord& run, int64_t n_causes) {
  const RunRecord::Counts& n = run.n;
  int64_t finished = 0, prompt = 0, made = 0, recomputed = 0;
  for (const RunRecord::Request& r : run.requests) {
    finished += r.is_finished ? 1 : 0;
    prompt += r.prompt_tokens - r.begin;
    made += r.made;
    recomputed += r.recomputed;
  }
  std::vector<DoctorFigure> out;
  const auto add = [&](const char* name, double value) { out.push_back({name, value}); };
  const auto count = [&](const char* name, int64_t value) { add(name, as_double(value)); };
  const auto removed = [&](RemovalReason reason) {
    const auto at = n.removed.find(reason);
    return at == n.removed.end() ? int64_t{0} : at->second;
  };
  count("causes", n_causes);
  count("requests", static_cast<int64_t>(run.requests.size()));
  count("finished", finished);
  count("kv_full", count_finished(run, FinishReason::kKvFull));
  count("context_full", count_finished(run, FinishReason::kContext));
  count("errors", count_finished(run, FinishReason::kError));
  count("deadlines", count_finished(run, FinishReason::kDeadline));
  count("prompt_tokens", prompt);
  count("made_tokens", made);
  count("recomputed_tokens", recomputed);
  count("tokens_written", n.tokens);
  count("longest", n.longest);
  count("steps", n.steps);
  count("steps_failed", n.failed_steps);
  add("seconds", n.seconds);
  add("step_seconds", n.steps == 0 ? 0 : n.step_seconds / as_double(n.steps));
  add("step_seconds_max", n.slowest);
  count("pool_pages", run.pool_pages);
  count("pages_peak", n.pages_peak);
  add("occupancy_peak",
      run.pool_pages == 0 ? 0 : as_double(n.pages_peak) / as_double(run.pool_pages));
  count("pages_full_peak", n.pages_full_peak);
  count("pages_wanted", pages_wanted(run));
  count("resident_peak", n.resident_peak);
  add("fill", fill_of(run));
  for (int i = 0; i < kRemovalReasons; ++i) {
    const auto reason = static_cast<RemovalReason>(i);
    count((std::string("removed_") + removal_reason_name(reason)).c_str(), removed(reason));
  }
  count("preemptions", n.preemptions);
  count("refusals", n.refusals);
  count("budget_falls", n.falls);
  count("budget_lifts", n.lifts);
  count("violations", n.violations);
  count("shortfalls", n.shortfalls);
  count("lookups", n.lookups);
  count("hits", n.hits);
  count("regrets", n.regrets);
  add("hit_rate", n.lookups == 0 ? 0 : as_double(n.hits) / as_double(n.lookups));
  add("regret", n.lookups == 0 ? 0 : as_double(n.regrets) / as_double(n.lookups));
  return out;
}

std::vector<ReplayResult> what_if_of(const RunRecord& run) {
  if (run.n.lookups == 0 || run.header.n_layers == 0) return {};
  RequestTrace trace;
  for (const RunRecord::Request& r : run.requests) {
    trace.add(r.blocks, r.seconds, r.prompt_tokens, r.made);
  }
  const int64_t pool = run.pool_pages / run.header.n_layers;
  ReplayOptions options;
  options.reclaim = {run.header.reclaim == "custom" ? "lru" : run.header.reclaim};
  options.capacities = {pool / 2, pool, 2 * pool, 4 * pool};
  for (int64_t& capacity : options.capacities) {
    capacity = std::min<int64_t>(capacity, std::numeric_limits<int32_t>::max());
  }
  return replay_requests(trace, options).results;
}

template <typename Read>
Diagnosis diagnose_run(const std::string& name, const Read& read) {
  RunRecord run;
  Diagnosis out;
  out.extent = read([&](const TraceRecord& record) { run.take(record); });
  run.end();
  if (run.header.n_layers == 0) {
    fail(ErrorCode::kBadFile, "'{}': the trace holds no engine; let one run with --kv-trace", name);
  }
  out.header = run.header;
  out.policy = run.policy;
  out.memory = std::move(run.memory);
  out.causes = find_causes(run);
  out.figures = figures_of(run, static_cast<int64_t>(out.causes.size()));
  out.samples = std::move(run.samples);
  out.map_length = run.map_length;
  out.map = std::move(run.map);
  out.lives = std::move(run.lives);
  out.reuse_gaps = std::move(run.reuse_gaps);
  for (const auto& [key, blocks] : run.losses) {
    const auto& [reason, layer, sequence] = key;
    out.losses.push_back({reason, layer, sequence, blocks});
  }
  out.what_if = what_if_of(run);
  return out;
}

}  // namespace

const char* ailment_name(Ailment ailment) noexcept {
  constexpr const char* kNames[] = {
      "pool_too_small",    "greedy_sequence",  "blocks_too_large",   "prefix_broken",
      "prefix_not_shared", "prefix_reclaimed", "window_drops_start", "budget_below_memory",
      "budget_spent",      "beyond_context",   "context_full",       "policy_violation",
      "failures"};
  static_assert(std::size(kNames) == kAilments);
  return kNames[static_cast<size_t>(ailment)];
}

Diagnosis diagnose(const std::string& path) {
  return diagnose_run(path, [&](const auto& take) { return read_trace(path, take); });
}

Diagnosis diagnose(std::string_view bytes, const std::string& name) {
  return diagnose_run(name, [&](const auto& take) { return read_trace(bytes, name, take); });
}

}  // namespace paddock
