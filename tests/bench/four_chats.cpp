// What elastic rules do for texts that share a pool: four of unequal length at once in one pool,
// and each in a quarter of it. Every token is scored, then forced, by a logits processor.
//   four_chats MODEL TEXT POSITIONS RULE...
#include <fmt/format.h>
#include <paddock/paddock.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "bench/unchecked.h"

namespace {

using paddock::TokenId;

constexpr int64_t kLengths[] = {256, 512, 1024, 1900};
constexpr int64_t kPrompt = 32;

struct Chat {
  std::vector<TokenId> tokens;
  double nll = 0;
  int64_t falls = 0;
};

double log_sum_exp(std::span<const float> row) {
  float max = row[0];
  for (const float x : row) max = std::max(max, x);
  double sum = 0;
  for (const float x : row) sum += std::exp(static_cast<double>(x - max));
  return max + std::log(sum);
}

paddock::RequestId begin(paddock::Engine& engine, Chat& chat) {
  paddock::GenerateOptions options;
  options.max_tokens = static_cast<int32_t>(chat.tokens.size()) - kPrompt;
  options.ignore_stop_tokens = true;
  options.sampling.temperature = 0;
  options.logits_processor = [&chat](std::span<const TokenId> text, std::span<float> logits) {
    const TokenId next = chat.tokens[text.size()];
    const float own = logits[next];
    chat.nll += log_sum_exp(logits) - own;
    for (float& x : logits) x = -std::numeric_limits<float>::infinity();
    logits[next] = own;
  };
  return engine.add(std::span(chat.tokens).first(kPrompt), options);
}

/// Runs these chats in an engine of so many bytes.
void run(const std::shared_ptr<const paddock::Model>& model, const std::string& rule,
         uint64_t bytes, std::span<Chat> chats) {
  paddock::EngineOptions options;
  options.max_sequences = static_cast<int32_t>(chats.size());
  options.batch_size = 64;
  options.kv.policy = rule;
  options.kv.budget_bytes = bytes;
  paddock::Engine engine(model, options);
  std::vector<paddock::RequestId> ids;
  for (Chat& chat : chats) ids.push_back(begin(engine, chat));
  while (engine.step()) {
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    const paddock::GenerateResult result = engine.take(ids[i]).value();
    if (result.finish_reason != paddock::FinishReason::kLength) {
      fmt::print(stderr, "{}: {}\n", rule, paddock::finish_reason_name(result.finish_reason));
    }
    chats[i].falls = static_cast<int64_t>(result.budget_changes.size());
  }
}

std::vector<Chat> chats_of(const std::vector<TokenId>& tokens) {
  std::vector<Chat> chats;
  int64_t at = 0;
  for (const int64_t n : kLengths) {
    chats.push_back({{tokens.begin() + at, tokens.begin() + at + n}, 0, 0});
    at += n;
  }
  return chats;
}

void print(const std::string& rule, const char* where, const std::vector<Chat>& chats) {
  std::string cells;
  double nll = 0;
  int64_t n = 0, falls = 0;
  for (const Chat& chat : chats) {
    const auto scored = static_cast<int64_t>(chat.tokens.size()) - kPrompt;
    cells += fmt::format(" {:.2f} |", std::exp(chat.nll / static_cast<double>(scored)));
    nll += chat.nll;
    n += scored;
    falls += chat.falls;
  }
  fmt::print("| `{}` | {} |{} {:.2f} | {} |\n", rule, where, cells,
             std::exp(nll / static_cast<double>(n)), falls);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr, "usage: four_chats MODEL TEXT POSITIONS RULE...\n");
    return 2;
  }
  const auto model = paddock::Model::load(argv[1]);
  std::ifstream file(argv[2]);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto tokens = model->tokenizer()->encode(text.substr(0, 40000), {.add_bos = false});
  paddock::EngineOptions probe;
  probe.context = 16;
  const paddock::KvStats pool = paddock::Engine(model, probe).kv_stats();
  const auto position_bytes =
      static_cast<uint64_t>(pool.page_bytes * pool.pages_per_block / pool.block_size);
  const uint64_t bytes = position_bytes * std::stoull(argv[3]);
  fmt::print(
      "| rule | memory | 256 | 512 | 1024 | 1900 | all | falls |\n"
      "|---|---|---|---|---|---|---|---|\n");
  for (int i = 4; i < argc; ++i) {
    std::vector<Chat> together = chats_of(tokens);
    run(model, argv[i], bytes, together);
    print(argv[i], "one pool", together);
    if (std::string_view(argv[i]) == "full") continue;  // it keeps everything, or does not end
    std::vector<Chat> apart = chats_of(tokens);
    for (Chat& chat : apart) run(model, argv[i], bytes / 4, {&chat, 1});
    print(argv[i], "a quarter each", apart);
  }
}
