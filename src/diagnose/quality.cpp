// The quality meter: engines side by side over one sequence.
#include "paddock/quality.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "core/fail.h"
#include "core/system.h"
#include "diagnose/quality_chunks.h"
#include "diagnose/quality_facts.h"
#include "diagnose/quality_rows.h"
#include "engine/advice.h"
#include "engine/driving.h"

namespace paddock {
namespace {

/// One rule with its engine.
struct Runner {
  std::string policy;
  EngineOptions options;  // as they were asked for
  std::unique_ptr<Engine> engine;
};

/// A rule's way through one sequence: a session, and what its layers held.
class Run {
 public:
  explicit Run(Runner& runner)
      : runner_(runner), session_(runner.engine->open_session()), kept_(layers().size()) {
    for (const KvLayerStats& layer : layers()) read_before_.push_back(layer.tokens_read);
  }
  ~Run() { runner_.engine->close_session(session_); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  const std::string& policy() const { return runner_.policy; }
  template <typename OnLogits>
  void feed(std::span<const TokenId> tokens, int64_t prompt_tokens, OnLogits&& on_logits) {
    try {
      runner_.engine->feed(session_, tokens, on_logits, prompt_tokens);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kCancelled) throw;
      fail(e.code(), "under '{}': {}", runner_.policy, e.what());
    }
    const std::vector<KvLayerStats> now = layers();
    for (size_t i = 0; i < kept_.size(); ++i) {
      kept_[i].max = std::max(kept_[i].max, now[i].tokens_peak);
      kept_[i].mean = static_cast<double>(now[i].tokens_read - read_before_[i]);
    }
    fed_ += static_cast<int64_t>(tokens.size());
  }
  /// Fills in what layers held.
  void report(PolicyQuality& out) const {
    out.layers = kept_;
    for (KeptTokens& layer : out.layers) {
      layer.mean /= static_cast<double>(fed_);
      out.kept.mean += layer.mean / static_cast<double>(kept_.size());
      out.kept.max = std::max(out.kept.max, layer.max);
    }
  }

 private:
  std::vector<KvLayerStats> layers() const { return runner_.engine->kv_stats().layers; }

  Runner& runner_;
  SessionId session_;
  int64_t fed_ = 0;
  std::vector<int64_t> read_before_;
  std::vector<KeptTokens> kept_;  // .mean: (query, key) pairs so far
};

void add(PolicyQuality& sum, const PositionQuality& at, int64_t position) {
  sum.nll += at.nll;
  sum.kl_mean += at.kl;
  if (at.kl > sum.kl_max) {
    sum.kl_max = at.kl;
    sum.kl_max_position = position;
  }
  sum.top1_agreement += at.agrees ? 1 : 0;
}

void finish(PolicyQuality& sum, int64_t scored) {
  const auto n = static_cast<double>(scored);
  sum.nll /= n;
  sum.kl_mean /= n;
  sum.top1_agreement /= n;
  sum.perplexity = std::exp(sum.nll);
}

}  // namespace

struct QualityMeter::Impl {
  std::shared_ptr<const Model> model;
  int32_t chunk = 0;
  std::vector<Runner> runners;  // the baseline first
  std::optional<BaselineRows> rows;
  std::atomic<bool> cancelled{false};
  Driving driving;  // callbacks must not compare with the rows of the comparison under way

  void make_engines();
  /// Errors kInvalidArgument where a context is too short, kOutOfMemory where a pool is.
  void check_length(int64_t tokens) const;
  void check_room(int64_t tokens) const;
  /// Error kCancelled if cancel() or a callback asked for it.
  void check_going_on(bool goes_on) const {
    if (cancelled || !goes_on) fail(ErrorCode::kCancelled, "the comparison was cancelled");
  }
};

void QualityMeter::Impl::make_engines() {
  for (size_t i = 0; i < runners.size(); ++i) {
    Runner& runner = runners[i];
    try {
      runner.engine = std::make_unique<Engine>(model, runner.options);
      runner.policy = runner.engine->options().kv.policy;
    } catch (const Error& e) {
      if (i == 0) throw;
      throw Error(e.code(), fmt::format("contender '{}': {}", runner.policy, e.problem()),
                  {e.proposals().begin(), e.proposals().end()});
    }
  }
}

void QualityMeter::Impl::check_length(int64_t tokens) const {
  for (const Runner& runner : runners) {
    const int64_t context = runner.engine->options().context;
    if (tokens <= context) continue;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("there are {} tokens to feed but the context under '{}' admits {} "
                            "positions",
                            tokens, runner.policy, context),
                propose(model->data().config, outline(*model, runner.options),
                        {.positions = tokens, .least = tokens}));
  }
  check_room(tokens);
}

// One budget is everyone's: what is proposed holds the text under every rule.
void QualityMeter::Impl::check_room(int64_t tokens) const {
  const LlamaConfig& config = model->data().config;
  std::vector<std::string> lacking;
  std::vector<Proposal> others;  // for one rule alone
  Proposal budget;
  uint64_t pool = 0;
  bool is_contender = false;
  for (size_t i = 0; i < runners.size(); ++i) {
    const Runner& runner = runners[i];
    if (runner.engine == nullptr && runner.options.kv.budget_bytes == 0) continue;  // fits itself
    EngineSetup setup;
    try {
      setup = outline(*model, runner.options);
    } catch (const Error&) {
      continue;  // its engine will say what is wrong
    }
    if (setup.options.context < tokens) continue;  // likewise
    const auto page_bytes = static_cast<uint64_t>(setup.pool.geometry.page_bytes());
    const auto needed =
        static_cast<uint64_t>(std::max(min_pages(setup), least_pages_needed(setup, tokens)));
    const uint64_t has = runner.engine != nullptr ? runner.engine->options().kv.budget_bytes
                                                  : runner.options.kv.budget_bytes;
    budget.budget_bytes = std::max(budget.budget_bytes.value_or(0), needed * page_bytes);
    if (needed <= has / page_bytes) continue;
    lacking.push_back(fmt::format("{} bytes under '{}'", needed * page_bytes, runner.policy));
    pool = setup.share_bytes = has;
    is_contender = i > 0;
    others = propose(config, setup, {.positions = tokens, .least = tokens});
  }
  if (lacking.empty()) return;
  std::vector<Proposal> proposals{budget};
  const bool one = lacking.size() == 1;
  for (const Proposal& other : others) {
    if (one && !other.budget_bytes) proposals.push_back(other);
  }
  throw Error(
      ErrorCode::kOutOfMemory,
      fmt::format("{}{} positions need {} of KV cache but the budget is {} bytes",
                  one && is_contender ? "contender: " : "", tokens, fmt::join(lacking, ", "), pool),
      std::move(proposals));
}

QualityMeter::QualityMeter(std::shared_ptr<const Model> model, const QualityOptions& options) try
    : impl_(std::make_unique<Impl>()) {
  if (model == nullptr) fail(ErrorCode::kInvalidArgument, "the quality meter was given no model");
  if (options.chunk < 1 || options.chunk > 65535) {
    fail(ErrorCode::kInvalidArgument, "chunk is {}; it must be from 1 to 65535", options.chunk);
  }
  const int32_t vocab = model->info().vocab_size;
  const bool compares = !options.contenders.empty() || !options.other_engines.empty();
  const uint64_t needed = compares ? BaselineRows::bytes(options.chunk, vocab) : 0;
  const uint64_t available = available_memory();
  if (available != 0 && needed > available) {
    fail(
        ErrorCode::kOutOfMemory,
        "a chunk of {} rows of {} logits needs {} bytes but only {} are available; lower the chunk",
        options.chunk, vocab, needed, available);
  }
  if (options.positions < 0) {
    fail(ErrorCode::kInvalidArgument, "positions is {}; it must be 0 or more", options.positions);
  }
  impl_->model = std::move(model);
  impl_->chunk = options.chunk;
  impl_->rows.emplace(options.chunk, vocab, compares);
  EngineOptions engine = options.engine;
  engine.batch_size = std::min(engine.batch_size, options.chunk);
  engine.kv.reuse = false;  // every position is measured, so every position is computed
  impl_->runners.push_back({engine.kv.policy, engine, nullptr});
  engine.kv.custom_policy = nullptr;
  engine.kv.trace = {};  // is that of the baseline
  for (const std::string& policy : options.contenders) {
    engine.kv.policy = policy;
    impl_->runners.push_back({policy, engine, nullptr});
  }
  for (EngineOptions other : options.other_engines) {
    other.batch_size = std::min(other.batch_size, options.chunk);
    other.kv.reuse = false;
    other.kv.trace = {};
    impl_->runners.push_back({other.kv.policy, other, nullptr});
  }
  if (options.positions > 0) impl_->check_room(options.positions);
  impl_->make_engines();
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

QualityMeter::~QualityMeter() = default;

void QualityMeter::cancel() {
  impl_->cancelled = true;
  for (const Runner& runner : impl_->runners) runner.engine->cancel();
}

const Engine& QualityMeter::engine(size_t index) const {
  if (index >= impl_->runners.size()) {
    fail(ErrorCode::kInvalidArgument, "there is no engine {}; there are {}", index,
         impl_->runners.size());
  }
  return *impl_->runners[index].engine;
}

namespace {

/// Whether there is something to score in a text of `n` tokens.
void check_text(int64_t n, const CompareOptions& options) {
  if (n < 2) {
    fail(ErrorCode::kInvalidArgument, "the text has {} tokens; at least 2 are needed to score one",
         n);
  }
  if (options.prompt_tokens < 0 || options.prompt_tokens > n) {
    fail(ErrorCode::kInvalidArgument, "prompt_tokens is {}; it must be from 0 to the text's {}",
         options.prompt_tokens, n);
  }
}

}  // namespace

QualityReport QualityMeter::compare(std::span<const TokenId> tokens,
                                    const CompareOptions& options) try {
  Impl& impl = *impl_;
  const Driving::Run under_way(impl.driving, "compare");
  impl.cancelled = false;
  const auto n = static_cast<int64_t>(tokens.size());
  check_text(n, options);
  Chunks chunks(n, impl.chunk, options);
  impl.check_length(n);
  const size_t n_rules = impl.runners.size();
  std::vector<std::unique_ptr<Run>> runs;
  for (Runner& runner : impl.runners) runs.push_back(std::make_unique<Run>(runner));
  std::vector<PolicyQuality> sums(n_rules);
  for (PolicyQuality& sum : sums) sum.top1_agreement = 0;
  std::vector<PositionQuality> scores(static_cast<size_t>(impl.chunk) * n_rules);

  while (const std::optional<Chunks::Chunk> chunk = chunks.next()) {
    const auto [begin, length, prompt_tokens] = *chunk;
    for (size_t rule = 0; rule < n_rules; ++rule) {
      Run& run = *runs[rule];
      run.feed(tokens.subspan(begin, length), prompt_tokens,
               [&, begin = begin](int64_t position, std::span<const float> row) {
                 if (position + 1 == n || impl.cancelled) return !impl.cancelled;
                 const TokenId next = tokens[position + 1];
                 const auto at = static_cast<int32_t>(position - begin);
                 scores[at * n_rules + rule] =
                     rule == 0 ? impl.rows->set(at, row, next) : impl.rows->score(at, row, next);
                 return true;
               });
      impl.check_going_on(!options.on_chunk || options.on_chunk(rule, begin + length));
      const auto done = static_cast<double>(begin * static_cast<int64_t>(n_rules) +
                                            length * static_cast<int64_t>(rule + 1));
      impl.check_going_on(
          !options.on_progress ||
          options.on_progress(done / static_cast<double>(n) / static_cast<double>(n_rules)));
    }
    for (int64_t position = begin + 1; position < std::min(n, begin + length + 1); ++position) {
      const auto rules = std::span<const PositionQuality>(scores).subspan(
          static_cast<size_t>(position - begin - 1) * n_rules, n_rules);
      for (size_t rule = 0; rule < n_rules; ++rule) add(sums[rule], rules[rule], position);
      impl.check_going_on(!options.on_position || options.on_position(position, rules));
    }
  }
  QualityReport report;
  report.tokens = n;
  report.scored = n - 1;
  for (size_t rule = 0; rule < n_rules; ++rule) {
    sums[rule].policy = runs[rule]->policy();
    finish(sums[rule], report.scored);
    runs[rule]->report(sums[rule]);
  }
  report.baseline = std::move(sums.front());
  report.contenders.assign(std::make_move_iterator(sums.begin() + 1),
                           std::make_move_iterator(sums.end()));
  return report;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

RecallReport QualityMeter::recall(std::span<const TokenId> text, std::span<const PlantedFact> facts,
                                  const RecallOptions& options) try {
  Impl& impl = *impl_;
  const Driving::Run under_way(impl.driving, "recall");
  impl.cancelled = false;
  const PlantedText planted = plant(*impl.model->tokenizer(), text, facts);
  const auto n = static_cast<int64_t>(planted.tokens.size());
  impl.check_length(n);
  std::vector<int64_t> answer_tokens(facts.size());
  for (const int32_t fact : planted.fact_of) {
    if (fact >= 0) ++answer_tokens[fact];
  }
  std::vector<PolicyRecall> results;
  const auto n_rules = static_cast<double>(impl.runners.size());
  for (Runner& runner : impl.runners) {
    Run run(runner);
    PolicyRecall result{runner.policy, 0, {}};
    result.facts.resize(facts.size(), {true, 0.0});
    for (int64_t begin = 0; begin < n; begin += impl.chunk) {
      const int64_t length = std::min<int64_t>(impl.chunk, n - begin);
      run.feed(std::span(planted.tokens).subspan(begin, length), planted.prompt_tokens,
               [&](int64_t position, std::span<const float> row) {
                 if (position + 1 == n || impl.cancelled) return !impl.cancelled;
                 const int32_t fact = planted.fact_of[position + 1];
                 if (fact < 0) return true;
                 const TokenId next = planted.tokens[position + 1];
                 FactRecall& recall = result.facts[fact];
                 recall.answer_nll +=
                     token_nll(row, next) / static_cast<double>(answer_tokens[fact]);
                 if (best_token(row) != static_cast<size_t>(next)) recall.recalled = false;
                 return true;
               });
      const double done = static_cast<double>(begin + length) / static_cast<double>(n);
      impl.check_going_on(
          !options.on_progress ||
          options.on_progress((static_cast<double>(results.size()) + done) / n_rules));
    }
    for (size_t i = 0; i < facts.size(); ++i) {
      const bool counts = results.empty() || results.front().facts[i].recalled;
      if (counts && result.facts[i].recalled) ++result.recalled;
    }
    results.push_back(std::move(result));
  }
  RecallReport report;
  report.tokens = n;
  report.positions = planted.positions;
  report.baseline = std::move(results.front());
  report.contenders.assign(std::make_move_iterator(results.begin() + 1),
                           std::make_move_iterator(results.end()));
  return report;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

}  // namespace paddock
