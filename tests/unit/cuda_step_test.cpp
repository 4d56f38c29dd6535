// How a step reaches the CUDA device: tables by their changes, launches recorded and replayed. The
// device is emulated.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "backend/cuda/step_recorder.h"
#include "support/engine_inside.h"
#include "support/rule_examples.h"
#include "support/simt/harness.h"
#include "support/simt/simt_runtime.h"
#include "support/small_requests.h"
#include "support/tiny_model.h"

namespace paddock::test {
namespace {

class CudaStep : public testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(simt::take_report_text(), ""); }
};

EngineOptions on(const std::string& device) {
  EngineOptions options = reference_options();
  options.device = device;
  options.kv.block_size = 4;
  return options;
}

// ---- what travels
/// Limits for plans of this cache, with what tables need and little else.
BackendLimits limits_of(const CacheManager& cache, const StepPlanner& planner, int32_t max_tokens) {
  BackendLimits limits;
  limits.step.max_tokens = max_tokens;
  limits.step.max_angle_rows = planner.sizes().max_angle_rows;
  limits.step.max_sequences = cache.config().max_sequences;
  limits.step.max_entries = planner.sizes().max_entries;
  limits.pool.geometry = {1, cache.config().block_size, 16, DType::kF16};
  return limits;
}

/// Steps of random sequences through a planner and an upload; after each the device's tables must
/// be the plan's.
void tables_follow(const std::string& policy, uint32_t seed) {
  SCOPED_TRACE(policy);
  constexpr int32_t kLayers = 3;
  constexpr int32_t kTokens = 40;
  const CacheConfig config{kLayers, 4, 4, 900, 64, 4, 400, 16};
  CacheManager cache(config, PolicyMap::parse(policy, kLayers));
  StepPlanner planner(cache, kTokens);
  const auto runtime = simt::make_simt_runtime();
  const BackendLimits limits = limits_of(cache, planner, kTokens);
  cuda::StepUpload upload(runtime, limits);
  std::mt19937 random(seed);
  std::vector<SequenceId> live;
  const std::vector<int32_t> ids(kTokens, 1);
  for (int step = 0; step < 150; ++step) {
    if (live.size() < 4 && random() % 8 == 0) live.push_back(cache.open());
    if (!live.empty() && random() % 20 == 0) {
      cache.close(live.front());
      live.erase(live.begin());
    }
    std::shuffle(live.begin(), live.end(), random);
    planner.clear();
    std::vector<SequenceId> in_step;
    const bool decodes = random() % 2 == 0;
    for (const SequenceId id : live) {
      if (random() % 4 == 0 || cache.length(id) > 380) continue;
      const auto n = static_cast<int32_t>(
          std::min<int64_t>(decodes ? 1 : 1 + random() % 10, cache.max_next(id)));
      if (!cache.reserve(id, n)) continue;
      planner.add(id, std::span(ids).first(n));
      in_step.push_back(id);
    }
    if (in_step.empty()) continue;
    const StepPlan& plan = planner.build();
    const bool lost = random() % 15 == 0;  // planned, but never uploaded
    if (!lost) {
      upload.upload(plan, cuda::choose_shape(plan, limits, INT32_MAX).shape);
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        const cuda::LayerUpload& of = upload.layers()[layer];
        for (size_t s = 0; s < in_step.size(); ++s) {
          cuda::AttentionSequence sequence{};
          runtime->copy_out(&sequence, of.sequences + s, sizeof(sequence));
          const std::span<const BlockEntry> expected = plan.layers[layer].sequences[s].entries;
          ASSERT_EQ(sequence.n_entries, static_cast<int32_t>(expected.size()));
          ASSERT_LE(sequence.n_entries, of.max_entries);
          std::vector<BlockEntry> held(expected.size());
          runtime->copy_out(held.data(), of.entries + sequence.first_entry,
                            held.size() * sizeof(BlockEntry));
          ASSERT_EQ(std::memcmp(held.data(), expected.data(), held.size() * sizeof(BlockEntry)), 0)
              << "step " << step << " layer " << layer << " sequence " << in_step[s];
        }
      }
    }
    for (const SequenceId id : in_step) {
      if (lost || random() % 10 == 0) {
        cache.rollback(id);
        continue;
      }
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        const std::vector<BlockUse> uses(cache.table(id, layer).size(), BlockUse{1000, 3, 0});
        const std::vector<int64_t> norms(kTokens, 7);
        cache.observe(id, layer, uses, std::span(norms).first(1));
      }
      cache.commit(id);
    }
    cache.tick();
  }
}

TEST_F(CudaStep, TablesOnTheDeviceFollowEveryPlan) {
  for (const RuleExample& example : rule_examples()) tables_follow(example.policy, 1);
  tables_follow("0+2=full,1=sink:3+9", 2);
}

TEST_F(CudaStep, LittleTravelsWhileDecoding) {
  const CacheConfig config{2, 4, 4, 600, 64, 2, 1000, 512};
  CacheManager cache(config, PolicyMap::parse("0=full,1=sink:4+40", 2));
  StepPlanner planner(cache, 512);
  const BackendLimits limits = limits_of(cache, planner, 512);
  cuda::StepUpload upload(simt::make_simt_runtime(), limits);
  const SequenceId id = cache.open();
  const std::vector<int32_t> ids(500, 1);
  for (const int32_t n : {44, 456, 1, 1, 1, 1, 1}) {  // a step ends at 4 + 40
    ASSERT_TRUE(cache.reserve(id, n));
    planner.clear();
    planner.add(id, std::span(ids).first(n));
    const StepPlan& plan = planner.build();
    upload.upload(plan, cuda::choose_shape(plan, limits, 16).shape);
    if (n > 1) {
      EXPECT_GE(upload.n_changes(), 2 * n / 4);
    } else {
      EXPECT_LE(upload.n_changes(), 1 + 12);  // a window that moves on shifts its own entries
      EXPECT_GE(upload.n_changes(), 2);
    }
    cache.commit(id);
    cache.tick();
  }
}

TEST_F(CudaStep, MoreChangesThanTravelAtOnce) {
  const CacheConfig config{3, 4, 1, 40000, 64, 1, 13000, 13000};
  CacheManager cache(config, PolicyMap::parse("full", 3));
  StepPlanner planner(cache, 13000);
  const BackendLimits limits = limits_of(cache, planner, 13000);
  const auto runtime = simt::make_simt_runtime();
  cuda::StepUpload upload(runtime, limits);
  const SequenceId id = cache.open();
  const std::vector<int32_t> ids(13000, 1);
  ASSERT_TRUE(cache.reserve(id, 13000));
  planner.add(id, ids);
  const StepPlan& plan = planner.build();
  upload.upload(plan, cuda::choose_shape(plan, limits, 16).shape);
  EXPECT_EQ(upload.n_changes(), 39000);
  for (int32_t layer = 0; layer < 3; ++layer) {
    std::vector<BlockEntry> held(13000);
    runtime->copy_out(held.data(), upload.layers()[layer].entries,
                      held.size() * sizeof(BlockEntry));
    EXPECT_EQ(std::memcmp(held.data(), plan.layers[layer].sequences[0].entries.data(),
                          held.size() * sizeof(BlockEntry)),
              0);
  }
}

TEST_F(CudaStep, ManyLayersMayAlternateBetweenRules) {
  // Each group's angle rows travel once, however its layers lie.
  const TemporaryFolder folder;
  const auto model = tiny_model(folder, {.n_layers = 12, .context_length = 512}, 5);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 70; ++i) tokens.push_back(i * 7 % 96);
  EngineOptions options = on("cuda");
  options.batch_size = 70;
  options.kv.policy = "0+2+4+6+8+10=sink:3+40,*=sink:2+50";
  Engine device(parts(model, options));
  options.device = "cpu";
  Engine host(parts(model, options));
  EXPECT_LT(relative_error(all_logits(device, tokens), all_logits(host, tokens)), 5e-5);
}

// ---- what comes to the host
TEST_F(CudaStep, RowsAreDrawnAndBroughtInEitherOrder) {
  const auto model = Model::load(golden("gqa2-linear"));
  const auto inside = parts(model, on("cuda"));
  StepOps& ops = inside->backend->ops();
  const Buffer hidden = inside->backend->make_buffer(4, model->info().hidden_size);
  const Buffer logits = inside->backend->make_buffer(4, model->info().vocab_size);
  StepPlanner planner(*inside->cache, 4);
  const SequenceId id = inside->cache->open();
  ASSERT_TRUE(inside->cache->reserve(id, 4));
  planner.add(id, std::vector<int32_t>{3, 14, 15, 92});
  ASSERT_TRUE(ops.run(planner.build(), [&](int32_t n) {
    EXPECT_EQ(n, 4);
    ops.embed(*inside->weights->embedding, hidden);
    return true;
  }));
  inside->cache->rollback(id);
  ops.linear(*inside->weights->output, hidden, 4, std::array{logits}, false);

  std::vector<SampleRow> how;
  for (uint64_t seed = 0; seed < 4; ++seed) how.push_back({1.5F, 0, 1.0F, 0.0F, seed, 9});
  const auto copy = [](const auto& span) { return std::vector(span.begin(), span.end()); };
  const std::vector<int32_t> tokens = copy(ops.sample(logits, how));
  const std::vector<float> values = copy(ops.host_rows(logits, 4));
  EXPECT_GT(std::set<int32_t>(tokens.begin(), tokens.end()).size(), 1U);
  for (const bool draws_first : {true, false}) {
    std::span<const int32_t> drawn;
    std::span<const float> brought;
    const auto draw = [&] {
      drawn = ops.sample(logits.rows_from(1), std::span(how).subspan(1, 2));
    };
    if (draws_first) draw();
    brought = ops.host_rows(logits.rows_from(2), 2);
    if (!draws_first) draw();
    // Neither takes the other's place.
    EXPECT_TRUE(std::equal(drawn.begin(), drawn.end(), tokens.begin() + 1, tokens.begin() + 3));
    EXPECT_TRUE(std::equal(brought.begin(), brought.end(),
                           values.end() - static_cast<int64_t>(brought.size()), values.end()));
    EXPECT_EQ(brought.size(), values.size() / 2);
  }
}

// ---- what is replayed
TEST_F(CudaStep, ShapesAreRoundedWhereStepsAreAlike) {
  BackendLimits limits;
  limits.step.max_tokens = 200;
  limits.pool.geometry = {1, 16, 16, DType::kF16};
  const auto shape = [&](int32_t sequences, int32_t each, int32_t n_entries) {
    const std::vector<BlockEntry> entries(n_entries);
    std::vector<SequenceView> views;
    for (int32_t s = 0; s < sequences; ++s) {
      views.push_back({s, s * each, each, 0, entries, nullptr, nullptr, 1, {}, nullptr});
    }
    const std::vector<LayerPlan> layers = {{{}, views, nullptr, 0}};
    const std::vector<int32_t> tokens(sequences * each);
    return cuda::choose_shape({tokens, {}, layers}, limits, 16);
  };
  for (const auto& [n, rounded] : {std::pair{1, 1},
                                   {2, 2},
                                   {3, 4},
                                   {5, 8},
                                   {9, 16},
                                   {17, 24},
                                   {65, 80},
                                   {190, 192},
                                   {199, 200}}) {
    EXPECT_EQ(shape(n, 1, 3).shape.n_tokens, rounded) << n;
    EXPECT_TRUE(shape(n, 1, 3).recordable);
  }
  EXPECT_EQ(shape(1, 1, 3).shape.most_entries, 64);  // up to 1024 positions
  EXPECT_EQ(shape(1, 1, 64).shape.most_entries, 64);
  EXPECT_EQ(shape(1, 1, 65).shape.most_entries, 128);
  EXPECT_FALSE(shape(1, 2, 3).recordable);
  EXPECT_EQ(shape(3, 2, 3).shape, (cuda::StepShape{6, 3, 16}));
}

TEST_F(CudaStep, ShapesDifferWhereOtherLayersAreMeasured) {
  BackendLimits limits;
  limits.step.max_tokens = 8;
  limits.pool.geometry = {1, 16, 16, DType::kF16};
  const std::vector<BlockEntry> entries(2);
  std::vector<BlockUse> uses(2);
  const std::vector<int32_t> tokens(2);
  // Two sequences, of which one, in some layers, is measured.
  const auto shape = [&](std::vector<int> measured, int32_t which) {
    std::vector<std::vector<SequenceView>> views;
    for (int32_t layer = 0; layer < 3; ++layer) {
      views.emplace_back();
      for (int32_t s = 0; s < 2; ++s) {
        const bool asks = s == which && measured[static_cast<size_t>(layer)] != 0;
        views.back().push_back(
            {s, s, 1, 0, entries, nullptr, nullptr, 1, {}, asks ? uses.data() : nullptr});
      }
    }
    std::vector<LayerPlan> layers;
    for (const auto& its : views) layers.push_back({{}, its, nullptr, 0});
    return cuda::choose_shape({tokens, {}, layers}, limits, 16);
  };
  for (int a = 0; a < 8; ++a) {
    for (int b = 0; b < 8; ++b) {
      const auto one = shape({a & 1, a & 2, a & 4}, 0), other = shape({b & 1, b & 2, b & 4}, 1);
      EXPECT_TRUE(one.recordable);
      EXPECT_EQ(one.shape == other.shape, a == b) << a << " " << b;
    }
  }
}

TEST_F(CudaStep, ReplaysServeChangingBatches) {
  const auto model = Model::load(golden("gqa2-linear"));
  const std::vector<TokenId> tokens = golden_tokens();
  for (const char* policy : {"full", "sink:3+14", "h2o:24@every:8", "0=full,*=window:9"}) {
    SCOPED_TRACE(policy);
    EngineOptions options = on("cuda");
    options.max_sequences = 5;
    options.kv.policy = policy;
    Engine device(parts(model, options));
    options.device = "cpu";
    Engine host(parts(model, options));
    const int64_t before = simt::replayed_steps();
    std::vector<std::pair<RequestId, std::vector<TokenId>>> expected;
    for (int32_t i = 0; i < 7; ++i) {  // they end one by one, and two come later
      const auto prompt = std::span(tokens).subspan(i, 3 + 2 * i);
      const GenerateOptions how = greedy(4 + 5 * (i % 4));
      expected.emplace_back(device.add(prompt, how), host.generate(prompt, how).tokens);
    }
    while (device.step()) device.check_integrity();
    for (const auto& [id, want] : expected) EXPECT_EQ(device.take(id)->tokens, want);
    EXPECT_GE(simt::replayed_steps() - before, 12);
  }
}

TEST_F(CudaStep, ReplaysFollowTablesThatOutgrowTheirShape) {
  const TemporaryFolder folder;
  const auto model = tiny_model(folder, {.n_layers = 1, .context_length = 1200}, 9);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 1045; ++i) tokens.push_back(i * 31 % 96);
  std::vector<std::vector<float>> rows[2];
  for (const bool replays : {false, true}) {
    simt::fail_recordings(!replays);
    EngineOptions options = on("cuda");
    options.precision = Precision::kFast;
    options.context = 1200;
    options.batch_size = 1000;
    Engine engine(parts(model, options));
    const SessionId session = engine.open_session();
    const int64_t before = simt::replayed_steps();
    engine.feed(session, std::span(tokens).first(1000));
    for (size_t i = 1000; i < tokens.size(); ++i) {  // past 1024 positions
      const std::span<const float> row = engine.feed(session, std::span(tokens).subspan(i, 1));
      rows[replays].emplace_back(row.begin(), row.end());
    }
    EXPECT_EQ(simt::replayed_steps() - before, replays ? 45 - 2 : 0);  // two shapes
  }
  EXPECT_EQ(rows[0], rows[1]);
}

TEST_F(CudaStep, WithoutRecordingsDecodingGoesOn) {
  const auto model = Model::load(golden("gqa2-linear"));
  const std::vector<TokenId> prompt = {3, 1, 4, 1, 5};
  simt::fail_recordings(true);
  const int64_t before = simt::replayed_steps();
  Engine device(parts(model, on("cuda")));
  Engine host(parts(model, on("cpu")));
  EXPECT_EQ(device.generate(prompt, greedy(9)).tokens, host.generate(prompt, greedy(9)).tokens);
  EXPECT_EQ(simt::replayed_steps(), before);
  simt::fail_recordings(false);
}

/// Says stop the n-th time it is asked.
struct StopAt final : StopCheck {
  explicit StopAt(int n) : left(n) {}
  bool should_stop() override { return --left == 0; }
  int left;
};

TEST_F(CudaStep, AStepMayBeStoppedWhileItIsRecorded) {
  const auto model = Model::load(golden("gqa2-linear"));
  std::vector<std::vector<float>> rows;
  for (const bool stops : {false, true}) {
    const auto inside = parts(model, on("cuda"));
    Engine engine(inside);
    const SessionId session = engine.open_session();
    engine.feed(session, std::vector<TokenId>{3, 1, 4});
    engine.feed(session, std::vector<TokenId>{1});  // met once
    if (stops) {
      auto& inner = *inside;
      Sequence& sequence = inner.session(session).sequence;
      sequence.tokens.push_back(77);
      ASSERT_TRUE(inner.cache->reserve(sequence.tables(), 1));
      StopAt stop(3);  // before the second layer
      const BatchPart part{&sequence, nullptr, 1, false, true};
      EXPECT_FALSE(inner.step_runner->run({&part, 1}, stop).completed);
      sequence.tokens.pop_back();
      EXPECT_EQ(sequence.computed(), sequence.length());
    }
    for (const TokenId id : {5, 9, 2}) {
      const std::span<const float> row = engine.feed(session, std::vector<TokenId>{id});
      rows.emplace_back(row.begin(), row.end());
    }
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(rows[i], rows[3 + i]);
}

TEST_F(CudaStep, AFailingReplayEndsTheEngine) {
  const auto model = Model::load(golden("gqa2-linear"));
  Engine engine(parts(model, on("cuda")));
  const SessionId session = engine.open_session();
  engine.feed(session, std::vector<TokenId>{3, 1, 4});
  for (const TokenId id : {1, 2, 3}) engine.feed(session, std::vector<TokenId>{id});
  simt::fail_launch_after(9);
  EXPECT_THROW(engine.feed(session, std::vector<TokenId>{7}), Error);
  simt::fail_launch_after(-1);
  EXPECT_THROW(engine.feed(session, std::vector<TokenId>{7}), Error);
  engine.check_integrity();
}

}  // namespace
}  // namespace paddock::test
