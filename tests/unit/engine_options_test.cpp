// Options of engines and requests: the last value that is taken and the first that is not, and what
// stands where none was given.
#include "support/small_requests.h"

namespace paddock::test {
namespace {

struct Edge {
  const char* name;
  std::function<void(EngineOptions&, int64_t)> set;
  std::vector<int64_t> good, bad;
};

/// Windows, so that neither context nor batch asks for a large pool.
EngineOptions modest() {
  EngineOptions o;
  o.threads = 1;
  o.kv.policy = "window:16";
  return o;
}

TEST(EngineOptions, RangesEndWhereTheySay) {
  const int64_t far = int64_t{1} << 40;
  const Edge edges[] = {{"threads",
                         [](auto& o, int64_t v) { o.threads = static_cast<int32_t>(v); },
                         {1, 1024},
                         {-1, 1025}},
                        {"batch_size",
                         [](auto& o, int64_t v) { o.batch_size = static_cast<int32_t>(v); },
                         {1, 65535},
                         {0, -1, 65536}},
                        {"max_sequences",
                         [](auto& o, int64_t v) { o.max_sequences = static_cast<int32_t>(v); },
                         {1, 4096},
                         {0, -1, 4097}},
                        {"context",
                         [](auto& o, int64_t v) { o.context = v; },
                         {0, 1, 2147483647},
                         {-1, 2147483648, far}},
                        {"kv.block_size",
                         [](auto& o, int64_t v) { o.kv.block_size = static_cast<int32_t>(v); },
                         {1, 4096},
                         {0, -1, 4097}},
                        {"kv.event_capacity",
                         [](auto& o, int64_t v) { o.kv.event_capacity = static_cast<int32_t>(v); },
                         {0, 1000000},
                         {-1, 1000001}},
                        {"kv.type",
                         [](auto& o, int64_t v) { o.kv.type = static_cast<KvType>(v); },
                         {0, 1, 2, 3},
                         {-1, 4}},
                        {"precision",
                         [](auto& o, int64_t v) { o.precision = static_cast<Precision>(v); },
                         {0, 1},
                         {-1, 2}}};
  for (const Edge& edge : edges) {
    for (const int64_t value : edge.good) {
      EngineOptions o = modest();
      edge.set(o, value);
      EXPECT_NO_THROW(o.validate());
      EXPECT_NO_THROW({
        Engine engine(tiny(), o);
        EXPECT_EQ(engine.kv_stats().total.pages_active, 0);
      }) << edge.name
         << " " << value;
    }
    for (const int64_t value : edge.bad) {
      EngineOptions o = modest();
      edge.set(o, value);
      const std::string said = refusal_of([&] { Engine(tiny(), o); });
      EXPECT_NE(said.find(edge.name), std::string::npos) << said;
      EXPECT_NE(said.find(std::to_string(value)), std::string::npos) << said;
      EXPECT_EQ(refusal_of([&] { o.validate(); }), said) << "without a model";
    }
  }
}

TEST(EngineOptions, KvTypesAreReadByTheNamesTheyHave) {
  EXPECT_EQ(kv_type_names(), (std::vector<std::string>{"f32", "f16", "bf16"}));
  const KvType types[] = {KvType::kF32, KvType::kF16, KvType::kBF16};
  for (size_t i = 0; i < std::size(types); ++i) {
    EXPECT_EQ(kv_type_name(types[i]), kv_type_names()[i]);
    EXPECT_EQ(parse_kv_type(kv_type_names()[i]), types[i]);
    EngineOptions o = modest();
    o.kv.type = types[i];
    EXPECT_EQ(Engine(tiny(), o).kv_stats().type, kv_type_names()[i]);
  }
  EXPECT_STREQ(kv_type_name(KvType::kAuto), "auto");
  EXPECT_STREQ(kv_type_name(static_cast<KvType>(4)), "unknown");
  for (const char* wrong : {"auto", "F16", "f1", "", "f16 "}) {
    EXPECT_EQ(refusal_of([&] { parse_kv_type(wrong); }),
              "KV type '" + std::string(wrong) + "' is unknown; use f32, f16 or bf16");
  }
}

TEST(EngineOptions, TheShareOfMemoryIsFromNothingToAll) {
  for (const double share : {-1e-9, 1.0000001, -1.0, double(INFINITY), double(NAN)}) {
    EngineOptions o = modest();
    o.kv.budget_share = share;
    EXPECT_NE(refusal_of([&] { Engine(tiny(), o); }).find("kv.budget_share"), std::string::npos);
  }
  for (const double share : {0.0, 0.5, 1.0}) {
    EngineOptions o = modest();
    o.kv.budget_share = share;
    EXPECT_NO_THROW(Engine(tiny(), o)) << share;
  }
  // Of a share no more than sequences of the admitted length can need.
  EngineOptions o = modest();
  const uint64_t whole = Engine(tiny(), o).options().kv.budget_bytes;
  o.kv.budget_share = 0.9;
  EXPECT_EQ(Engine(tiny(), o).options().kv.budget_bytes, whole);
  o.kv.budget_bytes = 1;
  EXPECT_NE(refusal_of([&] { Engine(tiny(), o); }).find("give one"), std::string::npos);
}

TEST(EngineOptions, DefaultsAreResolved) {
  const EngineOptions plain = Engine(tiny()).options();
  EXPECT_GE(plain.threads, 1);
  EXPECT_LE(plain.threads, 1024);
  EXPECT_EQ(plain.device.find("auto"), std::string::npos);
  EXPECT_EQ(plain.context, tiny()->info().context_length);
  EXPECT_EQ(plain.kv.type, KvType::kF16);
  EXPECT_EQ(plain.kv.policy, "full");
  EXPECT_EQ(plain.batch_size, 512);

  struct Row {
    const char* policy;
    int64_t context;
  };
  for (const Row& row :
       {Row{"full", 128}, Row{"window:16", 2147483647}, Row{"sink:2+9", 2147483647},
        Row{"0=full,1=window:8", 128}, Row{"h2o:32", 2147483647}}) {
    EngineOptions o;
    o.threads = 1;
    o.kv.policy = row.policy;
    EXPECT_EQ(Engine(tiny(), o).options().context, row.context) << row.policy;
  }

  EngineOptions o = reference_options();
  EXPECT_EQ(Engine(tiny(), o).options().kv.type, KvType::kF32);
  EXPECT_EQ(Engine(tiny(), o).kv_stats().type, "f32");
  o.kv.type = KvType::kBF16;
  EXPECT_EQ(Engine(tiny(), o).options().kv.type, KvType::kBF16);
  EXPECT_EQ(Engine(tiny(), o).kv_stats().type, "bf16");

  // The pool holds what all sequences of the context need, and no more.
  o = reference_options();
  o.kv.block_size = 4;
  for (const auto& [context, sequences, blocks] :
       {std::tuple{64, 1, 16}, std::tuple{65, 1, 17}, std::tuple{64, 3, 48}}) {
    o.context = context;
    o.max_sequences = sequences;
    Engine engine(tiny(), o);
    const KvStats stats = engine.kv_stats();
    EXPECT_EQ(stats.pool_pages, 2 * blocks);
    EXPECT_EQ(stats.page_bytes, 2 * 4 * tiny()->info().n_kv_heads * tiny()->info().head_dim * 4);
    EXPECT_EQ(engine.options().kv.budget_bytes,
              static_cast<uint64_t>(stats.pool_pages * stats.page_bytes));
    EXPECT_EQ(engine.max_positions(), context);
    EXPECT_GT(engine.memory_bytes(), engine.options().kv.budget_bytes);
  }
  // Of a budget as many pages as fit.
  const auto page = static_cast<uint64_t>(Engine(tiny(), o).kv_stats().page_bytes);
  o.max_sequences = 1;
  for (const auto& [bytes, pages] :
       {std::pair{10 * page, 10}, std::pair{11 * page - 1, 10}, std::pair{11 * page, 11}}) {
    o.kv.budget_bytes = bytes;
    Engine engine(tiny(), o);
    EXPECT_EQ(engine.kv_stats().pool_pages, pages);
    EXPECT_EQ(engine.options().kv.budget_bytes, static_cast<uint64_t>(pages) * page);
    EXPECT_EQ(engine.max_positions(), 4 * (pages / 2));
  }
  // What the engine takes grows by its pool.
  const auto taken = [&](uint64_t pages) {
    EngineOptions sized = o;
    sized.kv.budget_bytes = pages * page;
    return Engine(tiny(), sized).memory_bytes();
  };
  EXPECT_GE(taken(100000), taken(10) + 99990 * page);
  // Two pages are the least: one block in each layer.
  o.kv.budget_bytes = 2 * page;
  EXPECT_EQ(Engine(tiny(), o).max_positions(), 4);
  o.kv.budget_bytes = 2 * page - 1;
  EXPECT_THROW(Engine(tiny(), o), Error);
}

TEST(EngineOptions, TheLongestSequenceIsReallyAdmittedAndOneMoreIsNot) {
  for (const char* policy : {"full", "window:20", "0=full,1=window:8", "h2o:32@every:8"}) {
    for (const int64_t pages : {12, 17, 22, 30}) {
      EngineOptions o = reference_options();
      o.threads = 1;
      o.batch_size = 8;
      o.context = 50;
      o.kv.block_size = 4;
      o.kv.policy = policy;
      o.kv.budget_bytes =
          static_cast<uint64_t>(pages) * 2 * 4 * 4 *
          static_cast<uint64_t>(tiny()->info().n_kv_heads * tiny()->info().head_dim);
      std::unique_ptr<Engine> engine;
      try {
        engine = std::make_unique<Engine>(tiny(), o);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory) << policy;
        continue;
      }
      const int64_t most = engine->max_positions();
      ASSERT_GT(most, 0);
      const std::vector<TokenId> all = prompt_of(51);
      EXPECT_EQ(engine->generate(std::span(all).first(static_cast<size_t>(most)), greedy(0))
                    .finish_reason,
                FinishReason::kLength)
          << policy << " " << pages;
      EXPECT_THROW(engine->generate(std::span(all).first(static_cast<size_t>(most) + 1), greedy(0)),
                   Error)
          << policy << " " << pages;
    }
  }
}

TEST(EngineOptions, APoolThatNoNumberCountsIsRefused) {
  EngineOptions o;
  o.context = 2147483647;
  o.kv.block_size = 1;
  o.max_sequences = 4096;
  try {
    Engine engine(tiny(), o);
    ADD_FAILURE() << "was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(e.what()).find("2147483647 positions"), std::string::npos) << e.what();
  }
}

TEST(EngineOptions, TheContextIsTheLongestThatIsFed) {
  EngineOptions o = reference_options();
  o.context = 40;
  Engine engine(tiny(), o);
  const std::vector<TokenId> all = prompt_of(41);
  const auto rows = [](int64_t, std::span<const float>) { return true; };
  const SessionId session = engine.open_session();
  engine.feed(session, std::span(all).first(30));
  EXPECT_THROW(engine.feed(session, std::span(all).first(11)), Error);
  EXPECT_EQ(engine.session_length(session), 30);
  EXPECT_NO_THROW(engine.feed(session, std::span(all).first(10)));
  EXPECT_EQ(engine.session_length(session), 40);
  EXPECT_THROW(engine.feed(session, std::span(all).first(1), rows), Error);
  engine.close_session(session);
  EXPECT_NO_THROW(engine.forward(std::span(all).first(40), rows));
  EXPECT_THROW(engine.forward(all, rows), Error);
}

TEST(EngineOptions, RulesDoNotChangeUnderRequestsOrSessions) {
  Engine engine(tiny(), modest());
  const RequestId id = engine.add(prompt_of(5), greedy(2));
  const auto refused = [&] {
    const std::string said = refusal_of([&] { engine.set_kv_policy("window:8"); });
    EXPECT_NE(said.find("sessions are open"), std::string::npos) << said;
    EXPECT_EQ(engine.options().kv.policy, "window:16");
    EXPECT_EQ(engine.kv_stats().layers[0].policy, "window:16");
  };
  refused();
  while (engine.step()) {
  }
  const SessionId session = engine.open_session();
  refused();
  EXPECT_NO_THROW(engine.check_kv_policy("window:8"));
  engine.close_session(session);
  EXPECT_NO_THROW(engine.set_kv_policy("window:8"));
  EXPECT_EQ(engine.options().kv.policy, "window:8");
  EXPECT_TRUE(engine.take(id));  // a result may wait
}

TEST(RequestOptions, WithoutATokenizerNoStopStringIsFound) {
  Engine engine(tiny(), modest());
  ASSERT_THROW(engine.model().tokenizer(), Error);
  GenerateOptions o = greedy(9);
  o.stop = {"a", "e"};
  const GenerateResult r = engine.generate(prompt_of(5), o);
  EXPECT_EQ(r.finish_reason, FinishReason::kLength);
  EXPECT_EQ(r.tokens.size(), 9U);
  EXPECT_EQ(r.text, "");
}

TEST(RequestOptions, RangesEndWhereTheySay) {
  Engine engine(tiny(), modest());
  const std::vector<TokenId> prompt = prompt_of(5);
  const auto run = [&](const std::function<void(GenerateOptions&)>& change) {
    GenerateOptions o = greedy(1);
    change(o);
    engine.generate(prompt, o);
  };
  EXPECT_NO_THROW(run([](auto& o) { o.max_tokens = 0; }));
  EXPECT_NE(refusal_of([&] { run([](auto& o) { o.max_tokens = -1; }); }).find("max_tokens is -1"),
            std::string::npos);
  // At most as many alternatives as there are tokens.
  EXPECT_NO_THROW(run([](auto& o) { o.logprobs = 0; }));
  EXPECT_NO_THROW(run([](auto& o) { o.logprobs = 128; }));
  for (const int32_t n : {-1, 129, kMaxLogprobs + 1}) {
    EXPECT_NE(refusal_of([&] { run([&](auto& o) { o.logprobs = n; }); }).find("logprobs"),
              std::string::npos);
  }
  EXPECT_NE(refusal_of([&] { run([](auto& o) {
                               o.stop = {"a", ""};
                             }); }).find("empty"),
            std::string::npos);
  // It would end the text inside a character.
  EXPECT_NE(refusal_of([&] { run([](auto& o) { o.stop = {"a\xA9"}; }); }).find("byte 1"),
            std::string::npos);
  EXPECT_NO_THROW(run([](auto& o) { o.stop = {"\xC3\xA9"}; }));
  EXPECT_NE(refusal_of([&] { run([](auto& o) { o.sampling.top_p = 0; }); }).find("top_p"),
            std::string::npos);
  EXPECT_FALSE(engine.step()) << "what was refused is not queued";
  engine.check_integrity();

  for (const TokenId id : {-1, 128}) {
    std::vector<TokenId> wrong = prompt;
    wrong[3] = id;
    const std::string said = refusal_of([&] { engine.generate(wrong, greedy(1)); });
    EXPECT_NE(said.find("token 3 of the prompt is " + std::to_string(id)), std::string::npos)
        << said;
    EXPECT_NE(said.find("0 to 127"), std::string::npos) << said;
  }
  for (const TokenId id : {0, 127}) {
    EXPECT_NO_THROW(engine.generate(std::vector<TokenId>{id}, greedy(1)));
  }
  EXPECT_NE(
      refusal_of([&] { engine.generate(std::vector<TokenId>{}, greedy(1)); }).find("no tokens"),
      std::string::npos);
}

TEST(Snapshots, TotalsAreTheSumsOfTheLayers) {
  EngineOptions o = reference_options();
  o.kv.block_size = 4;
  o.kv.policy = "0=full,1=h2o:16@every:8";
  Engine engine(tiny(), o);
  const SessionId session = engine.open_session();
  engine.feed(session, prompt_of(50));
  const KvStats stats = engine.kv_stats();
  double seconds = 0;
  int64_t overflows = 0;
  for (const KvLayerStats& layer : stats.layers) {
    EXPECT_GT(layer.attention_seconds, 0);
    seconds += layer.attention_seconds;
    overflows += layer.kv_overflows;
  }
  EXPECT_DOUBLE_EQ(stats.total.attention_seconds, seconds);
  EXPECT_EQ(stats.total.kv_overflows, overflows);
  EXPECT_EQ(stats.device.reserved_bytes, engine.memory_bytes());
  EXPECT_GT(stats.memory.resident_bytes, 0U);
  EXPECT_GT(stats.memory.available_bytes, 0U);
}

}  // namespace
}  // namespace paddock::test
