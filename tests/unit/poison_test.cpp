// Free pages are not numbers in the builds that say so, and whoever reads one is found out.
#include "support/engine_inside.h"
#include "support/golden.h"
#include "support/rule_examples.h"

namespace paddock::test {
namespace {

#ifdef PADDOCK_POISON
constexpr bool kPoisons = true;
#else
constexpr bool kPoisons = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
static_assert(kPoisons, "configure address sanitizer builds with -DPADDOCK_POISON=ON");
#endif

bool is_poisoned(const Engine::Impl& inside, int32_t page) {
  const std::vector<std::byte> bytes = page_bytes(inside, page);
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0xFF}; });
}

bool finite(std::span<const float> row) {
  return std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); });
}

TEST(Poison, WhoeverReadsAPoisonedPageSeesNoNumbers) {
  const std::vector<TokenId> tokens = golden_tokens();
  const auto model = Model::load(golden("gqa4-llama3"));
  for (const Precision precision : {Precision::kReference, Precision::kFast}) {
    for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kBF16}) {
      for (const std::string& isa : isas()) {
        EngineOptions options;
        options.threads = 1;
        options.precision = precision;
        options.isa = isa;
        options.kv.type = type;
        options.kv.block_size = 4;
        try {
          const auto inner = parts(model, options);
          Engine engine(inner);
          const SessionId session = engine.open_session();
          EXPECT_TRUE(finite(engine.feed(session, std::span(tokens).first(30))));
          const int32_t page = inner->cache->table(0, 1)[2].page;
          inner->backend->pages().poison_page(page);
          try {
            engine.feed(session, std::span(tokens).subspan(30, 1));
            ADD_FAILURE() << kv_type_name(type) << " " << isa;
          } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadFile) << e.what();
          }
        } catch (const Error& e) {
          ASSERT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();  // not on this processor
        }
      }
    }
  }
}

TEST(Poison, FreePagesAreNoNumbersWhereTheBuildSaysSo) {
  if (kEmulated) GTEST_SKIP() << "what nobody wrote looks poisoned there";
  const std::vector<TokenId> tokens = golden_tokens();
  const auto model = Model::load(golden("gqa1-default"));
  for (const RuleExample& example : rule_examples()) {
    EngineOptions options = reference_options();
    options.kv.block_size = 4;
    options.kv.policy = example.policy;
    options.kv.reuse = false;  // what is kept is not free
    options.context = 200;
    const auto inner = parts(model, options);
    Engine engine(inner);
    const SessionId session = engine.open_session();
    const auto check = [&] {
      std::set<int32_t> listed;
      for (int32_t layer = 0; layer < 2; ++layer) {
        for (const BlockEntry& e : inner->cache->table(0, layer)) listed.insert(e.page);
      }
      for (int32_t page = 0; page < inner->setup.pool.n_pages; ++page) {
        EXPECT_EQ(is_poisoned(*inner, page), kPoisons && !listed.contains(page)) << "page " << page;
      }
    };
    check();
    for (size_t at = 0; at < tokens.size(); at += 8) {
      EXPECT_TRUE(finite(engine.feed(session, std::span(tokens).subspan(at, 8))));
    }
    check();
    engine.truncate(session, 0);
    check();
  }
}

}  // namespace
}  // namespace paddock::test
