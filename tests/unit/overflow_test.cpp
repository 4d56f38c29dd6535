// Keys and values that their type cannot hold: noticed where they are stored, and named wherever
// they spoil logits.
#include <gtest/gtest.h>

#include <cmath>

#include "paddock/log.h"
#include "paddock/quality.h"
#include "support/golden.h"
#include "support/poisoned_model.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

const std::vector<TokenId> kTokens = {3, 5, 9, 4, 60, 61, 62, 63, 64, 65};

EngineOptions with(KvType type, Precision precision = Precision::kFast) {
  EngineOptions options;
  options.threads = 2;
  options.precision = precision;
  options.kv.type = type;
  options.kv.block_size = 4;
  return options;
}

/// What a call is refused with.
std::string refusal(ErrorCode code, const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code);
    return e.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return {};
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

class Overflow : public testing::TestWithParam<const char*> {
 protected:
  Overflow() {
    TinyShape shape;
    (GetParam() == std::string("keys") ? shape.key_scale : shape.value_scale) = 1e6;
    model_ = tiny_model(folder_, shape, 3);
  }
  TemporaryFolder folder_;
  std::shared_ptr<const Model> model_;
  static constexpr const char* kFix =
      "cannot hold; make the engine with kv.type bf16 (--kv-type bf16)";
};

TEST_P(Overflow, EveryConsumerNamesTheTypeAndTheLayer) {
  for (const Precision precision : {Precision::kFast, Precision::kReference}) {
    EngineOptions options = with(KvType::kF16, precision);
    options.max_sequences = 2;
    Engine engine(parts(model_, options));
    GenerateOptions greedy;
    greedy.max_tokens = 3;
    greedy.sampling.temperature = 0;
    for (const bool on_host : {false, true}) {
      if (on_host) greedy.logprobs = 0;
      const GenerateResult result = engine.generate(kTokens, greedy);
      EXPECT_EQ(result.finish_reason, FinishReason::kError);
      expect_part(result.error, "layer 0 has stored ");
      expect_part(result.error, kFix);
      expect_part(result.error, "after position 9 is ");
    }
    const SessionId session = engine.open_session();
    const auto unsupported = ErrorCode::kUnsupported;
    expect_part(refusal(unsupported, [&] { engine.feed(session, kTokens); }), kFix);
    EXPECT_EQ(engine.session_length(session), 10);
    const auto on_logits = [](int64_t, std::span<const float> row) {
      EXPECT_TRUE(std::isfinite(row[0]));
      return true;
    };
    engine.truncate(session, 0);
    expect_part(refusal(unsupported, [&] { engine.feed(session, kTokens, on_logits); }), kFix);
    expect_part(refusal(unsupported, [&] { engine.forward(kTokens, on_logits); }), kFix);
    engine.check_integrity();
    EXPECT_GT(engine.kv_stats().layers[0].kv_overflows, 0);

    QualityOptions quality;
    quality.engine = with(KvType::kF16, precision);
    quality.contenders = {"window:4"};
    QualityMeter meter(model_, quality);
    const std::string text = refusal(unsupported, [&] { meter.compare(kTokens); });
    expect_part(text, "under 'full': the logit of token ");
    expect_part(text, kFix);
  }
}

TEST_P(Overflow, TypesThatHoldThemGiveNumbers) {
  for (const KvType type : {KvType::kBF16, KvType::kF32}) {
    Engine engine(parts(model_, with(type)));
    const SessionId session = engine.open_session();
    for (const float x : engine.feed(session, kTokens)) ASSERT_TRUE(std::isfinite(x));
    EXPECT_EQ(engine.kv_stats().total.kv_overflows, 0);
  }
}

TEST_P(Overflow, IsCountedPerLayer) {
  Engine engine(parts(model_, with(KvType::kF16)));
  const SessionId session = engine.open_session();
  EXPECT_THROW(engine.feed(session, std::span(kTokens).first(1)), Error);
  const KvStats stats = engine.kv_stats();
  // What a layer makes of infinities is no finite number that could overflow.
  EXPECT_GT(stats.layers[0].kv_overflows, 0);
  EXPECT_LE(stats.layers[0].kv_overflows, 16);  // one KV head of 16 dimensions
  EXPECT_EQ(stats.total.kv_overflows, stats.layers[0].kv_overflows + stats.layers[1].kv_overflows);
  expect_part(to_json(stats), "\"kv_overflows\":" + std::to_string(stats.total.kv_overflows));
  expect_part(to_table(stats), "layer 0: " + std::to_string(stats.layers[0].kv_overflows) +
                                   " keys and values did not fit f16 and are infinite\n");
  expect_part(to_prometheus(stats), "paddock_kv_overflows_total{layer=\"0\"} " +
                                        std::to_string(stats.layers[0].kv_overflows) + "\n");
}

INSTANTIATE_TEST_SUITE_P(Of, Overflow, testing::Values("keys", "values"));

TEST(OverflowNumbers, AreWarnedOfOnceWhereLogitsStayFinite) {
  // A key of minus infinity in the last layer is one that a later query does not see.
  const TemporaryFolder folder;
  TinyShape shape;
  shape.n_layers = shape.n_heads = 1;
  shape.key_scale = 1.2e4;
  const auto model = tiny_model(folder, shape, 3);
  std::vector<std::string> warnings;
  set_log_hook([&](LogLevel level, std::string_view text) {
    if (level == LogLevel::kWarning) warnings.emplace_back(text);
  });
  int silent = 0;
  for (TokenId id = 0; id < shape.vocab_size; ++id) {
    Engine engine(parts(model, with(KvType::kF16)));
    const SessionId session = engine.open_session();
    warnings.clear();
    try {
      engine.feed(session, std::vector<TokenId>{id, 7});
      engine.feed(session, std::vector<TokenId>{7});
    } catch (const Error&) {
      continue;
    }
    const int64_t lost = engine.kv_stats().total.kv_overflows;
    EXPECT_EQ(warnings.size(), lost > 0 ? 1U : 0U);
    if (lost == 0) continue;
    ++silent;
    expect_part(warnings.at(0), "layer 0 has stored ");
    expect_part(warnings.at(0), "--kv-type bf16");
  }
  set_log_hook({});
  EXPECT_GT(silent, 0);
}

/// What becomes of the first token in a cache of bfloat16, where values are `scale` times as large.
struct Stored {
  int64_t lost;
  std::string refusal;
};
Stored stored_as_bf16(double scale) {
  const TemporaryFolder folder;
  TinyShape shape;
  shape.n_layers = 1;
  shape.value_scale = scale;
  Engine engine(parts(tiny_model(folder, shape, 3), with(KvType::kBF16, Precision::kReference)));
  Stored out;
  try {
    engine.feed(engine.open_session(), std::span(kTokens).first(1));
  } catch (const Error& e) {
    out.refusal = e.what();
  }
  out.lost = engine.kv_stats().total.kv_overflows;
  return out;
}

TEST(OverflowNumbers, WhatBfloat16CannotHoldNeedsFloat32) {
  // Between the largest numbers of the two types lies a fifth of a percent.
  double fits = 1e36;
  double too_large = 1e39;
  while (too_large / fits > 1.0002) {
    const double scale = std::sqrt(fits * too_large);
    const Stored stored = stored_as_bf16(scale);
    (stored.lost > 0 || !stored.refusal.empty() ? too_large : fits) = scale;
  }
  const Stored stored = stored_as_bf16(too_large);
  EXPECT_GT(stored.lost, 0);
  expect_part(stored.refusal, "bf16 cannot hold; make the engine with kv.type f32 (--kv-type f32)");
}

TEST(OverflowNumbers, DamagedWeightsAreNotBlamedOnTheType) {
  const TemporaryFolder folder;
  Engine engine(parts(Model::load(poisoned_folder(folder)), with(KvType::kF16)));
  const SessionId session = engine.open_session();
  const std::string text = refusal(ErrorCode::kBadFile, [&] { engine.feed(session, kTokens); });
  expect_part(text, "weights are damaged");
  EXPECT_EQ(text.find("kv-type"), std::string::npos) << text;
  EXPECT_EQ(engine.kv_stats().total.kv_overflows, 0);
}

}  // namespace
}  // namespace paddock::test
