// paddock perplexity: one sequence, every token scored from the second on; with --against, two
// policies in lockstep.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "common.h"

namespace cli {
namespace {

struct Args {
  EngineArgs engine;
  std::string file, tokens_file, against;
  int prompt_tokens = 0;
};

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - largest);
  return largest + std::log(sum);
}

size_t best(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Rows of the second engine, computed on a thread of its own and handed over in order; the queue
/// is short, so that neither engine runs far ahead.
class RowStream {
 public:
  RowStream(paddock::Engine& engine, std::span<const paddock::TokenId> tokens)
      : thread_([this, &engine, tokens] {
          try {
            engine.forward(tokens, [&](int64_t, std::span<const float> row) {
              std::unique_lock lock(mutex_);
              changed_.wait(lock, [&] { return rows_.size() < kMost || closed_; });
              if (closed_) return false;
              rows_.emplace_back(row.begin(), row.end());
              changed_.notify_all();
              return true;
            });
          } catch (...) {
            const std::lock_guard lock(mutex_);
            error_ = std::current_exception();
            changed_.notify_all();
          }
        }) {}
  ~RowStream() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }
  std::vector<float> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !rows_.empty() || error_; });
    if (rows_.empty()) std::rethrow_exception(error_);
    std::vector<float> row = std::move(rows_.front());
    rows_.pop_front();
    changed_.notify_all();
    return row;
  }

 private:
  static constexpr size_t kMost = 64;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<float>> rows_;
  std::exception_ptr error_;
  bool closed_ = false;
  std::thread thread_;
};

struct Score {
  double nll = 0, other_nll = 0, kl_sum = 0, kl_max = 0;
  int64_t scored = 0, agreed = 0;
};

void score_row(std::span<const float> row, std::optional<paddock::TokenId> next,
               std::span<const float> other, Score& score) {
  if (!next) return;
  const double normalizer = log_sum_exp(row);
  score.nll += normalizer - row[*next];
  ++score.scored;
  if (other.empty()) return;
  const double other_normalizer = log_sum_exp(other);
  score.other_nll += other_normalizer - other[*next];
  double kl = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double log_p = row[i] - normalizer;
    kl += std::exp(log_p) * (log_p - (other[i] - other_normalizer));
  }
  score.kl_sum += kl;
  score.kl_max = std::max(score.kl_max, kl);
  if (best(row) == best(other)) ++score.agreed;
}

int run(const Args& args) {
  paddock::EngineOptions options = args.engine.engine_options();
  if (args.prompt_tokens < 0) {
    throw UsageError(fmt::format("--prompt-tokens {}: must be 0 or more", args.prompt_tokens));
  }
  const auto model = args.engine.load_model();
  const std::vector<paddock::TokenId> tokens =
      args.tokens_file.empty()
          ? model->tokenizer()->encode(read_file(args.file), {.parse_special = true})
          : read_tokens(args.tokens_file);
  if (tokens.size() < 2) {
    throw paddock::Error(
        paddock::ErrorCode::kInvalidArgument,
        fmt::format("the text has {} tokens; at least 2 are needed to score one", tokens.size()));
  }
  // One sequence: where a layer sees everything, the context must hold the text.
  if (options.context == 0) options.context = static_cast<int64_t>(tokens.size());
  const auto engine = make_engine(model, options);
  std::unique_ptr<paddock::Engine> other_engine;
  std::optional<RowStream> other;
  if (!args.against.empty()) {
    paddock::EngineOptions other_options = options;
    other_options.kv.policy = args.against;
    other_engine = make_engine(model, other_options);
    other.emplace(*other_engine, tokens);
  }
  const InterruptGuard guard(*engine);
  Score score;
  engine->forward(tokens, [&](int64_t position, std::span<const float> row) {
    const auto next = static_cast<size_t>(position) + 1;
    const std::vector<float> other_row = other ? other->next() : std::vector<float>{};
    score_row(row, next < tokens.size() ? std::optional(tokens[next]) : std::nullopt, other_row,
              score);
    return !InterruptGuard::interrupted();
  });
  if (InterruptGuard::interrupted()) return 130;

  const auto n = static_cast<double>(score.scored);
  const double nll = score.nll / n;
  Json out = {{"tokens", tokens.size()},
              {"scored", score.scored},
              {"nll", nll},
              {"perplexity", std::exp(nll)},
              {"policy", options.kv.policy}};
  if (other) {
    out["against"] = {
        {"policy", args.against},     {"perplexity", std::exp(score.other_nll / n)},
        {"nll", score.other_nll / n}, {"kl_mean", score.kl_sum / n},
        {"kl_max", score.kl_max},     {"top1_agreement", static_cast<double>(score.agreed) / n}};
  }
  if (args.engine.json) {
    print(out.dump() + "\n");
    return 0;
  }
  std::string text = fmt::format("{} tokens scored under {}: perplexity {:.4f} (nll {:.6f})\n",
                                 score.scored, options.kv.policy, std::exp(nll), nll);
  if (other) {
    text += fmt::format(
        "against {}: perplexity {:.4f}, KL mean {:.6f}, max {:.6f}, top-1 agreement {:.4f}\n",
        args.against, std::exp(score.other_nll / n), score.kl_sum / n, score.kl_max,
        static_cast<double>(score.agreed) / n);
  }
  print(text);
  return 0;
}

}  // namespace

void add_perplexity(CLI::App& app, int& exit_code) {
  auto args = std::make_shared<Args>();
  CLI::App* command = app.add_subcommand("perplexity", "how well the model predicts a text");
  args->engine.add_to(*command);
  CLI::Option_group* input = command->add_option_group("text");
  input->add_option("-f,--file", args->file, "the text; no BOS is added");
  input->add_option("--tokens-file", args->tokens_file, "a JSON array of ids");
  input->require_option(1);
  command->add_option("--against", args->against, "a second policy, compared in lockstep");
  command->add_option("--prompt-tokens", args->prompt_tokens,
                      "the first N tokens are prompt, for rules that care");
  command->callback([args, &exit_code] { exit_code = run(*args); });
}

}  // namespace cli
