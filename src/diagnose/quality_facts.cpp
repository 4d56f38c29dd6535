#include "diagnose/quality_facts.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <set>

#include "core/fail.h"
#include "core/mix.h"

namespace paddock {
namespace {

constexpr const char* kNames[] = {"Alice",  "Boris", "Clara", "David", "Emma",  "Frank", "Grace",
                                  "Henry",  "Iris",  "James", "Karen", "Louis", "Mary",  "Nina",
                                  "Oscar",  "Paul",  "Quinn", "Rosa",  "Simon", "Tina",  "Ursula",
                                  "Victor", "Wendy", "Xaver", "Yusuf", "Zoe"};
static_assert(std::size(kNames) == kMaxFacts);

void append(std::vector<TokenId>& to, std::span<const TokenId> tokens) {
  to.insert(to.end(), tokens.begin(), tokens.end());
}

}  // namespace

std::vector<PlantedFact> make_facts(int32_t n, uint64_t seed) {
  if (n < 1 || n > kMaxFacts) {
    fail(ErrorCode::kInvalidArgument, "{} facts; there can be 1 to {}", n, kMaxFacts);
  }
  std::vector<PlantedFact> facts;
  std::set<uint64_t> numbers;
  for (int32_t i = 0; i < n; ++i) {
    uint64_t number = 1000 + next_random(seed) % 9000;
    while (!numbers.insert(number).second) number = 1000 + next_random(seed) % 9000;
    const std::string question = fmt::format("The secret number of {} is", kNames[i]);
    const std::string answer = fmt::format(" {}", number);
    facts.push_back({question + answer + ".", question, answer, (i + 0.5) / n});
  }
  return facts;
}

PlantedText plant(const Tokenizer& tokenizer, std::span<const TokenId> text,
                  std::span<const PlantedFact> facts) {
  if (facts.empty()) fail(ErrorCode::kInvalidArgument, "there are no facts to plant");
  for (size_t i = 0; i < facts.size(); ++i) {
    const PlantedFact& fact = facts[i];
    if (fact.statement.empty() || fact.question.empty() || fact.answer.empty()) {
      fail(ErrorCode::kInvalidArgument,
           "fact {} lacks a part; statement, question and answer must all be given", i);
    }
    if (!(fact.depth >= 0 && fact.depth <= 1)) {
      fail(ErrorCode::kInvalidArgument, "fact {} has depth {}; it must be from 0 to 1", i,
           fact.depth);
    }
  }
  std::vector<size_t> order(facts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return facts[a].depth < facts[b].depth; });

  PlantedText out;
  out.positions.resize(facts.size());
  size_t done = 0;
  for (const size_t i : order) {
    const auto at =
        static_cast<size_t>(std::llround(facts[i].depth * static_cast<double>(text.size())));
    append(out.tokens, text.subspan(done, at - done));
    done = at;
    out.positions[i] = static_cast<int64_t>(out.tokens.size());
    append(out.tokens, tokenizer.encode("\n" + facts[i].statement + "\n"));
  }
  append(out.tokens, text.subspan(done));
  out.prompt_tokens = static_cast<int64_t>(out.tokens.size());
  out.fact_of.assign(out.tokens.size(), -1);
  for (size_t i = 0; i < facts.size(); ++i) {
    append(out.tokens, tokenizer.encode("\n" + facts[i].question));
    out.fact_of.resize(out.tokens.size(), -1);
    append(out.tokens, tokenizer.encode(facts[i].answer));
    out.fact_of.resize(out.tokens.size(), static_cast<int32_t>(i));
  }
  return out;
}

int64_t recall_tokens(const Tokenizer& tokenizer, std::span<const PlantedFact> facts) {
  return static_cast<int64_t>(plant(tokenizer, {}, facts).tokens.size());
}

}  // namespace paddock
