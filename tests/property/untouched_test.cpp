// A query before which nothing has left, in its layer or an earlier one, gives the bits of `full`:
// under every rule, in blocks of any size, in steps of any length, after going back too.
#include <fmt/format.h>

#include "support/golden.h"

namespace paddock::test {
namespace {

struct Untouched {
  std::string policy;
  int64_t positions;  // the first so many queries miss nothing; 0: until something is trimmed
};

const std::vector<Untouched> kRules = {{"window:17", 17},          {"sink:3+14", 17},
                                       {"sink:3+14@original", 17}, {"sink:8+9", 17},
                                       {"sink:17+1", 18},          {"sink:1+1", 2},
                                       {"0=full,*=sink:5+20", 25}, {"0=sink:2+40,*=sink:20+9", 29},
                                       {"lru:24@every:8", 0},      {"h2o:24@every:8@compact", 0},
                                       {"knorm:24@every:8", 0}};

std::vector<std::vector<float>> rows_of(const EngineOptions& options, int64_t* trimmed) {
  const auto model = Model::load(golden("gqa1-default"));
  Engine engine(parts(model, options));
  std::vector<std::vector<float>> rows;
  engine.forward(golden_tokens(), [&](int64_t, std::span<const float> row) {
    engine.check_integrity();
    rows.emplace_back(row.begin(), row.end());
    return true;
  });
  *trimmed = 0;
  for (const KvEvent& event : engine.kv_events()) {
    if (event.reason != RemovalReason::kPolicyTrim) continue;
    *trimmed = event.length;
    break;
  }
  return rows;
}

TEST(Untouched, QueriesThatMissNothingGiveTheBitsOfFull) {
  int64_t trimmed = 0;
  for (const Precision precision : exact_precisions()) {
    for (const int32_t block : kEmulated ? std::vector{4} : std::vector{1, 7, 16}) {
      EngineOptions options;
      options.threads = 2;
      options.precision = precision;
      options.kv.block_size = block;
      const auto full = rows_of(options, &trimmed);
      for (const Untouched& rule : kRules) {
        if (block > 7 && rule.positions == 0) continue;  // too large to leave a choice
        if (kEmulated && rule.positions == 17 && rule.policy != "sink:3+14") continue;  // slow
        for (const int32_t chunk : kEmulated ? std::vector{9} : std::vector{1, 10}) {
          SCOPED_TRACE(fmt::format("{} in blocks of {}, {} at once, precision {}", rule.policy,
                                   block, chunk, static_cast<int>(precision)));
          options.kv.policy = rule.policy;
          options.batch_size = chunk;
          const auto rows = rows_of(options, &trimmed);
          const int64_t untouched = rule.positions > 0 ? rule.positions : trimmed;
          ASSERT_GT(untouched, 0);
          ASSERT_LT(untouched, static_cast<int64_t>(rows.size()));
          for (int64_t t = 0; t < untouched; ++t) ASSERT_EQ(rows[t], full[t]) << t;
          EXPECT_NE(rows.back(), full.back());
        }
      }
    }
  }
}

TEST(Untouched, AlsoAfterGoingBack) {
  const auto model = Model::load(golden("gqa1-default"));
  const std::vector<TokenId> tokens = golden_tokens();
  for (const Precision precision : exact_precisions()) {
    for (const char* policy : {"sink:3+14", "sink:6+11@original", "0=full,*=sink:3+14"}) {
      if (kEmulated && policy[0] != '0') continue;  // slow
      SCOPED_TRACE(policy);
      std::vector<std::vector<float>> rows;
      for (const char* rule : {"full", policy}) {
        EngineOptions options;
        options.threads = 1;
        options.precision = precision;
        options.kv.block_size = 16;
        options.kv.policy = rule;
        Engine engine(parts(model, options));
        const SessionId session = engine.open_session();
        engine.feed(session, std::span(tokens).first(22));
        for (const int64_t length : {13, 9, 17, 2}) {
          engine.truncate(session, length);
          engine.check_integrity();
          for (int64_t t = length; t < 17; ++t) {
            const auto row = engine.feed(session, std::span(tokens).subspan(t + 20, 1));
            rows.emplace_back(row.begin(), row.end());
          }
          engine.feed(session, std::span(tokens).first(5));
          engine.check_integrity();
        }
      }
      const size_t n = rows.size() / 2;
      for (size_t i = 0; i < n; ++i) EXPECT_EQ(rows[i], rows[n + i]) << i;
    }
  }
}

}  // namespace
}  // namespace paddock::test
