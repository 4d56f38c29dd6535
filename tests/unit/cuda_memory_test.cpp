// Memory beside a step: pages that go to the host and come back while steps run, and what is said
// of a device's memory. On the CPU and on an emulated CUDA device, or (PADDOCK_GPU_TEST) a real
// one.
#include <fmt/format.h>

#include "backend/cuda/nvml.h"
#include "core/system.h"
#include "support/engine_inside.h"
#include "support/golden.h"
#include "support/simt/harness.h"
#if !defined(PADDOCK_GPU_TEST)
#include "support/simt/simt_runtime.h"
#endif

namespace paddock::test {
namespace {

class DevicePages : public testing::TestWithParam<const char*> {
 protected:
  EngineOptions options() const {
    EngineOptions options = reference_options();
    options.device = GetParam();
    options.kv.block_size = 4;
    options.max_sequences = 2;
    return options;
  }
  void TearDown() override { EXPECT_EQ(simt::take_report_text(), ""); }
};

/// Pages of all layers that a sequence's tables list.
std::vector<int32_t> pages_of(const Engine::Impl& inside, SequenceId id) {
  std::vector<int32_t> pages;
  for (int32_t layer = 0; layer < inside.model->info().n_layers; ++layer) {
    for (const BlockEntry& e : inside.cache->table(id, layer)) pages.push_back(e.page);
  }
  return pages;
}

TEST_P(DevicePages, AreCopiedBeforeAnybodyWritesIntoASharedOne) {
  const auto model = Model::load(golden("gqa4-llama3"));
  const std::vector<TokenId> tokens = golden_tokens();
  const auto all = std::span(tokens);
  const auto inner = parts(model, options());
  Engine engine(inner);
  const SessionId first = engine.open_session();
  engine.feed(first, all.first(20));
  const SessionId second = engine.open_session();
  engine.feed(second, all.first(20));  // lists what the first one computed
  const auto tables = [&](SessionId id) { return inner->session(id).sequence.tables(); };
  const int32_t shared = inner->cache->table(tables(first), 0)[2].page;
  EXPECT_EQ(inner->cache->table(tables(second), 0)[2].page, shared);
  const std::vector<std::byte> before = page_bytes(*inner, shared);
  engine.truncate(second, 10);
  const auto row = engine.feed(second, all.subspan(30, 9));
  const std::vector<float> rewound(row.begin(), row.end());
  engine.check_integrity();
  EXPECT_NE(inner->cache->table(tables(second), 0)[2].page, shared);
  EXPECT_EQ(page_bytes(*inner, shared), before);
  EngineOptions plain = options();
  plain.kv.reuse = false;
  Engine fresh(parts(model, plain));
  const SessionId session = fresh.open_session();
  fresh.feed(session, all.first(10));
  const auto expected = fresh.feed(session, all.subspan(30, 9));
  EXPECT_EQ(rewound, std::vector<float>(expected.begin(), expected.end()));
}

TEST_P(DevicePages, ComeBackAsTheyWere) {
  const auto model = Model::load(golden("gqa4-llama3"));
  const std::vector<TokenId> tokens = golden_tokens();
  std::vector<std::vector<float>> rows;
  for (const bool moves : {false, true}) {
    const auto inner = parts(model, options());
    Engine engine(inner);
    const SessionId session = engine.open_session();
    const SessionId other = engine.open_session();
    engine.feed(session, std::span(tokens).first(21));
    PageStore& store = inner->backend->pages();
    if (moves) {
      const std::vector<int32_t> pages =
          pages_of(*inner, inner->session(session).sequence.tables());
      const auto host = store.make_host_pages(static_cast<int64_t>(pages.size()));
      std::vector<PageCopy> copies;
      for (size_t i = 0; i < pages.size(); ++i) {
        copies.push_back({pages[i], host->page(static_cast<int64_t>(i))});
      }
      const int64_t saved = store.save_pages(copies);
      engine.feed(other, std::span(tokens).first(5));  // goes on beside it
      store.wait_for_copies(saved);
      EXPECT_TRUE(store.copies_done(saved));
      for (const int32_t page : pages) store.poison_page(page);
      EXPECT_NE(page_bytes(*inner, pages[0])[0], host->page(0)[0]);
      const int64_t loaded = store.load_pages(copies);
      EXPECT_GE(loaded, saved);
      rows.emplace_back();
      const std::span<const float> row = engine.feed(session, std::span(tokens).subspan(21, 3));
      rows.back().assign(row.begin(), row.end());
      store.wait_for_copies(loaded);
    } else {
      engine.feed(other, std::span(tokens).first(5));
      const std::span<const float> row = engine.feed(session, std::span(tokens).subspan(21, 3));
      rows.emplace_back(row.begin(), row.end());
    }
  }
  EXPECT_EQ(rows[0], rows[1]);
}

TEST_P(DevicePages, AreCopiedWhileStepsGoOn) {
  const auto inner = parts(Model::load(golden("gqa2-linear")), options());
  Engine engine(inner);
  const SessionId session = engine.open_session();
  const std::vector<TokenId> tokens = golden_tokens();
  engine.feed(session, std::span(tokens).first(16));
  PageStore& store = inner->backend->pages();
  const std::vector<int32_t> pages = pages_of(*inner, 0);
  const auto host = store.make_host_pages(4);
  // Apart, then two that lie side by side.
  const std::vector<PageCopy> copies = {{pages[3], host->page(0)},
                                        {pages[0], host->page(2)},
                                        {pages[0] + 1, host->page(3)},
                                        {pages[2], host->page(1)}};
  const int64_t ticket = store.save_pages(copies);
  engine.feed(session, std::vector<TokenId>{1, 2, 3});
  int polls = 0;
  while (!store.copies_done(ticket)) ASSERT_LT(++polls, 1'000'000);
#if !defined(PADDOCK_GPU_TEST)  // the emulated device is slow by decree
  EXPECT_EQ(polls > 0, std::string(GetParam()) == "cuda");
#endif
  // The other way round into free pages: they hold the same.
  std::vector<PageCopy> back = copies;
  const int32_t free_page = inner->setup.pool.n_pages - 4;
  for (int32_t i = 0; i < 4; ++i) back[i].page = free_page + i;
  store.wait_for_copies(store.load_pages(back));
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(page_bytes(*inner, back[i].page), page_bytes(*inner, copies[i].page)) << i;
  }
}

#if !defined(PADDOCK_GPU_TEST)  // whose memory has that size and no other user
TEST_P(DevicePages, StatisticsNameTheDevice) {
  const auto model = Model::load(golden("gqa2-linear"));
  Engine engine(parts(model, options()));
  const KvStats stats = engine.kv_stats();
  const bool is_cuda = std::string(GetParam()) == "cuda";
  EXPECT_EQ(stats.device.device, is_cuda ? "cuda:0 (emulated)" : "cpu");
  EXPECT_EQ(stats.device.reserved_bytes, engine.memory_bytes());
  EXPECT_EQ(stats.device.total_bytes, is_cuda ? uint64_t{1} << 30 : 0);
  if (is_cuda) {
    // Ours and the driver's view agree but for what alignment takes.
    const uint64_t taken = stats.device.total_bytes - stats.device.free_bytes;
    EXPECT_GE(taken, stats.device.reserved_bytes);
    EXPECT_LE(taken, stats.device.reserved_bytes + stats.device.reserved_bytes / 10);
    EXPECT_NE(to_table(stats).find("cuda:0 (emulated): "), std::string::npos);
  }
  EXPECT_NE(to_json(stats).find(fmt::format(R"("device":{{"name":"{}")", stats.device.device)),
            std::string::npos);
  EXPECT_NE(to_prometheus(stats).find(
                fmt::format("paddock_kv_device_bytes{{device=\"{}\",kind=\"reserved\"}} {}\n",
                            stats.device.device, stats.device.reserved_bytes)),
            std::string::npos)
      << to_prometheus(stats);
}

TEST_P(DevicePages, APoolMayTakeAShareOfWhatIsFree) {
  const auto model = Model::load(golden("gqa2-linear"));
  EngineOptions some = options();
  some.context = 100000;  // more than fits
  const uint64_t free = std::string(GetParam()) == "cuda" ? uint64_t{1} << 30 : available_memory();
  const double allowed = 40e6;
  some.kv.budget_share = allowed / static_cast<double>(free);
  {
    Engine engine(parts(model, some));
    const auto taken = static_cast<double>(engine.memory_bytes());
    // The CPU's free memory moves while we look.
    const double slack = std::string(GetParam()) == "cuda" ? 1.0 : 1.3;
    EXPECT_LE(taken, allowed * slack);
    EXPECT_GE(taken, 0.8 * allowed / slack);
    EXPECT_EQ(engine.kv_stats().pool_bytes, static_cast<int64_t>(engine.options().kv.budget_bytes));
    GenerateOptions how;
    how.max_tokens = 3;
    EXPECT_EQ(engine.generate(std::vector<TokenId>{1, 2, 3}, how).tokens.size(), 3U);
  }
  some.context = 40;  // less than the share would hold
  Engine small(parts(model, some));
  EXPECT_EQ(small.kv_stats().pool_pages, int64_t{2} * 10 * model->info().n_layers);
}
#endif

INSTANTIATE_TEST_SUITE_P(On, DevicePages, testing::Values("cpu", "cuda"),
                         [](const auto& of) { return std::string(of.param); });

#if !defined(PADDOCK_GPU_TEST)
TEST(Nvml, TellsWhatTheDriverDoes) {
  const auto nvml = cuda::Nvml::open("0000:0A:00.0", PADDOCK_FAKE_NVML);
  ASSERT_NE(nvml, nullptr);
  const auto memory = nvml->memory();
  ASSERT_TRUE(memory.has_value());
  EXPECT_EQ(memory->total_bytes, 80000U);
  EXPECT_EQ(memory->free_bytes, 60000U);
  EXPECT_EQ(memory->process_bytes, 7000U);
}

TEST(Nvml, IsDoneWithoutWhereItIsMissing) {
  EXPECT_EQ(cuda::Nvml::open("0000:0A:00.0", "no-such-library.so.1"), nullptr);
  EXPECT_EQ(cuda::Nvml::open("0000:0B:00.0", PADDOCK_FAKE_NVML), nullptr);
  EXPECT_EQ(cuda::Nvml::open("0000:0A:00.0", "libm.so.6"), nullptr);
}
#endif

}  // namespace
}  // namespace paddock::test
