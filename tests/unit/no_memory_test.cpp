// One allocation fails, each in turn: what asked for it ends with a clear error, and the next call
// works.
#include "support/golden.h"
#include "support/live_bytes.h"
#include "support/no_threads.h"
#include "support/small_model.h"

namespace paddock::test {
namespace {

/// Fails the allocation after the next `n`, in this scope.
class FailAfter {
 public:
  explicit FailAfter(int64_t n) { g_fail_after = n; }
  ~FailAfter() { g_fail_after = -1; }
  /// Whether it came to that.
  static bool failed() { return g_fail_after < 0; }
};

/// Runs act() over and over, its first, second, ... allocation failing, until none is left. Only
/// Error kOutOfMemory may leave it. after(n) follows each. It asks for memory `least` times or
/// more.
void fail_each(const std::function<void()>& act, const std::function<void(int64_t)>& after,
               int64_t least = 11) {
  for (int64_t n = 0;; ++n) {
    bool failed = false;
    {
      const FailAfter fail(n);
      try {
        act();
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory) << n << ": " << e.what();
        EXPECT_NE(std::string(e.what()).find("memory"), std::string::npos) << e.what();
      }
      failed = FailAfter::failed();
    }
    if (!failed) {
      EXPECT_GE(n, least);
      return;
    }
    after(n);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "allocation " << n;
      return;
    }
  }
}

#define SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS() \
  if (!kCountsBytes) GTEST_SKIP() << "a sanitizer owns operator new"

TEST(NoMemory, EncodingFailsCleanly) {
  SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS();
  const TemporaryFolder folder;
  write_small_model(folder);
  const auto model = Model::load(folder.path());
  const std::string text = std::string(400, 'a') + " and so on";
  std::vector<TokenId> ids;
  fail_each([&] { ids = model->tokenizer()->encode(text); }, [](int64_t) {});
  EXPECT_FALSE(ids.empty());
}

TEST(NoMemory, DecodingFailsCleanly) {
  SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS();
  const TemporaryFolder folder;
  write_small_model(folder);
  const auto tokenizer = Model::load(folder.path())->tokenizer();
  const std::vector<TokenId> ids = tokenizer->encode(std::string(400, 'a') + " and so on");
  std::string text;
  fail_each([&] { text = tokenizer->decode(ids); }, [](int64_t) {}, 3);
  EXPECT_EQ(text, tokenizer->decode(ids));
}

/// Tokens of more bytes than a string holds without asking for memory.
class LongTokens final : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view, EncodeOptions) const override { return {}; }
  std::string_view token_bytes(TokenId id) const override { return id == 0 ? kFirst : kSecond; }
  int32_t vocab_size() const override { return 2; }
  bool is_special(TokenId) const override { return false; }
  std::optional<TokenId> find(std::string_view) const override { return {}; }
  std::optional<TokenId> bos() const override { return {}; }
  bool adds_bos() const override { return false; }
  const std::vector<TokenId>& stop_tokens() const override { return none_; }
  const std::string& chat_template() const override { return text_; }

 private:
  // The first ends in the middle of a character.
  static constexpr std::string_view kFirst = "a text that is long enough to need memory \xE2\x82";
  static constexpr std::string_view kSecond = "\xAC and one more that is long enough to need it";
  std::vector<TokenId> none_;
  std::string text_;
};

TEST(NoMemory, AStreamsIdCanBePushedAgain) {
  SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS();
  const auto tokenizer = std::make_shared<const LongTokens>();
  const std::vector<TokenId> ids = {0, 1, 0, 1};
  size_t next = 0;
  std::string text;
  text.reserve(400);
  StreamDecoder stream(tokenizer);
  fail_each(
      [&] {
        while (next < ids.size()) {
          text += stream.push(ids[next]);
          ++next;
        }
        text += stream.finish();
      },
      [](int64_t) {}, 3);
  EXPECT_EQ(text, tokenizer->decode(ids));
}

TEST(NoMemory, ChatTemplatesFailCleanly) {
  SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS();
  const TemporaryFolder folder;
  write_small_model(folder);
  const std::string jinja =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
      "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
      "'<|im_start|>assistant\n' }}{% endif %}";
  folder.write("chat_template.jinja", jinja);
  const auto tokenizer = Model::load(folder.path())->tokenizer();
  const std::string content = "a message that is long enough to need memory of its own";
  const std::vector<ChatMessage> messages = {{"system", content}, {"user", content}};
  const ChatMessage next{"user", content};
  GenerateResult answer;
  answer.tokens = tokenizer->encode("aaaa");
  answer.text = "aaaa";
  const ChatTemplate chat(tokenizer, {.template_name = "chatml"});
  const std::string text = chat.render(messages, true);
  const std::vector<TokenId> ids = chat.encode(messages, true);
  const std::vector<TokenId> turn = chat.next_turn(next, answer).tokens;
  fail_each([&] { EXPECT_EQ(ChatTemplate(tokenizer).name(), "chatml"); }, [](int64_t) {});
  fail_each([&] { ChatTemplate(tokenizer, {.template_name = "llama3"}); }, [](int64_t) {}, 1);
  fail_each([&] { EXPECT_GT(ChatTemplate::names().size(), 5U); }, [](int64_t) {}, 3);
  fail_each([&] { EXPECT_EQ(chat.render(messages, true), text); }, [](int64_t) {}, 3);
  fail_each([&] { EXPECT_EQ(chat.encode(messages, true), ids); }, [](int64_t) {});
  fail_each([&] { EXPECT_EQ(chat.next_turn(next, answer).tokens, turn); }, [](int64_t) {});
}

TEST(NoMemory, MakingAPolicyFailsCleanly) {
  SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS();
  const CustomPolicies custom = {
      {"mine", [](std::string_view arguments) { return make_policy(std::string(arguments)); }}};
  for (const char* rule : {"sink:4+252", "pyramid:h2o:256@every:32", "mine:sink:4+252@original"}) {
    SCOPED_TRACE(rule);
    fail_each([&] { EXPECT_NE(make_policy(rule, custom), nullptr); }, [](int64_t) {}, 1);
  }
  fail_each([&] { EXPECT_GT(policy_forms().size(), 5U); }, [](int64_t) {}, 3);
}

TEST(NoMemory, MakingAnEngineFailsCleanly) {
  SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS();
  const auto model = Model::load(golden("gqa1-Q8_0.gguf"));
  EngineOptions options = reference_options();
  options.threads = 1;
  options.kv.policy = "0=sink:2+20,*=h2o:32@every:8";
  fail_each([&] { Engine(parts(model, options)).kv_stats(); }, [](int64_t) {});
}

class Session {
 public:
  explicit Session(std::shared_ptr<const Model> model, const std::string& policy)
      : model_(std::move(model)) {
    options_.threads = 1;
    options_.context = 96;
    options_.max_sequences = 4;
    options_.batch_size = 16;
    options_.kv.block_size = 4;
    options_.kv.policy = policy;
    options_.kv.on_event = [this](const KvEvent&) { ++told_; };
    generate_.max_tokens = 7;
    generate_.sampling.temperature = 0.9F;
    generate_.sampling.repeat_penalty = 1.2F;
    generate_.sampling.logit_bias = {{3, 0.5F}};
    generate_.stop = {"never so long a string of text"};
    generate_.logprobs = 3;
    generate_.ignore_stop_tokens = true;
    generate_.on_token = [](const TokenEvent&) { return true; };
    for (TokenId i = 0; i < 30; ++i) prompt_.push_back('a' + i % 17);
    renew();
    expected_ = engine_->generate(prompt_, generate_).tokens;
    expected_short_ = engine_->generate(std::span(prompt_).first(9), generate_).tokens;
  }

  void renew() { engine_ = std::make_unique<Engine>(parts(model_, options_)); }

  /// A bit of everything.
  void live() {
    const auto rows = [](int64_t, std::span<const float>) { return true; };
    Engine& e = *engine_;
    const SessionId session = e.open_session();
    e.generate(session, prompt_, generate_);
    const RequestId first = e.add(prompt_, generate_);
    const RequestId second = e.add(std::span(prompt_).first(9), generate_);
    while (e.step()) {
    }
    e.take(first);
    e.take(second);
    e.generate("a cab", generate_);
    if (options_.kv.policy != "h2o:24@every:8") {  // which keeps nothing to be pinned
      e.unpin(e.pin(prompt_).id);
      e.pin(prompt_);
    }
    e.feed(session, std::span(prompt_).first(5));
    e.feed(session, std::span(prompt_).first(5), rows);
    e.forward(prompt_, rows);
    e.truncate(session, 0);
    e.generate(session, prompt_, generate_);
    e.close_session(session);
    e.set_kv_policy("window:24");
    e.generate(prompt_, generate_);
    e.options();
    e.kv_blocks(0);
    e.kv_events();
    e.set_kv_policy("full");
  }

  /// The engine after a failure: nothing is lost, every kind of call works.
  void check() {
    Engine& e = *engine_;
    e.check_integrity();
    while (e.step()) e.check_integrity();
    for (RequestId id = 1; id < 9; ++id) {  // of those that went on, nothing is missing
      const auto result = e.take(id);
      if (!result || result->finish_reason != FinishReason::kLength) continue;
      EXPECT_EQ(result->tokens, result->prompt_tokens == 9 ? expected_short_ : expected_);
    }
    for (SessionId id = 1; id < 4; ++id) {  // whichever are open
      try {
        const int64_t length = e.session_length(id);
        const GenerateResult next = e.generate(id, std::span(prompt_).first(2), generate_);
        EXPECT_EQ(e.session_length(id), length + 2 + static_cast<int64_t>(next.tokens.size()))
            << finish_reason_name(next.finish_reason);
        e.close_session(id);
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("not open"), std::string::npos) << error.what();
      }
    }
    e.set_kv_policy(options_.kv.policy);
    EXPECT_EQ(e.stats().pins, 0);
    EXPECT_EQ(e.generate(prompt_, generate_).tokens, expected_);
    e.check_integrity();
    const KvStats stats = e.kv_stats();
    EXPECT_EQ(stats.sequences, 0);
    EXPECT_EQ(stats.total.pages_active, 0);
    EXPECT_EQ(stats.policy_violations, 0);
  }

 private:
  std::shared_ptr<const Model> model_;
  EngineOptions options_;
  GenerateOptions generate_;
  std::vector<TokenId> prompt_;
  std::vector<TokenId> expected_, expected_short_;
  std::unique_ptr<Engine> engine_;
  int64_t told_ = 0;
};

TEST(NoMemory, MakingAnEngineWithoutThreadsFailsCleanly) {
  if (!kCanForbidThreads) GTEST_SKIP() << "a sanitizer starts threads its own way";
  if (kOnCuda) GTEST_SKIP() << "a device needs none";
  const TemporaryFolder folder;
  write_small_model(folder);
  const auto model = Model::load(folder.path());
  EngineOptions options;
  options.threads = 2;
  const NoThreads none;
  try {
    Engine engine(model, options);
    ADD_FAILURE() << "two were to be had";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfMemory) << e.what();
  }
  options.threads = 1;
  EXPECT_NO_THROW(Engine(model, options));
}

TEST(NoMemory, ASessionLosesOnlyWhatAskedForIt) {
  SKIP_WHERE_ALLOCATIONS_ARE_NOT_OURS();
  if (kOnCuda) GTEST_SKIP() << "the emulation allocates, and has no kernels for heads this small";
  const TemporaryFolder folder;
  write_small_model(folder);
  for (const std::string policy : {"full", "sink:2+20", "h2o:24@every:8"}) {
    SCOPED_TRACE(policy);
    Session session(Model::load(folder.path()), policy);
    fail_each([&] { session.live(); },
              [&](int64_t) {
                session.check();
                session.renew();
              });
  }
}

}  // namespace
}  // namespace paddock::test
