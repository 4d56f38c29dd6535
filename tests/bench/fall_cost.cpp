// What falls of budgets take of the steps they happen in: many sequences decode in a pool that is
// too small for them. What a step decides, falls included, is what it takes until its pass begins;
// the falls are what that is more than in steps without any. Processor time of the one thread.
//   fall_cost MODEL [SEQUENCES [POSITIONS [RULE...]]]   POSITIONS: what the pool holds for each
#include <fmt/format.h>
#include <paddock/paddock.h>

#include <algorithm>
#include <ctime>
#include <string>
#include <vector>

#include "bench/unchecked.h"
#include "engine/engine_impl.h"
#include "support/hooked_backend.h"

namespace {

using namespace paddock;

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Step {
  double deciding = 0, all = 0;  // seconds
  int64_t falls = 0;
};

EngineOptions options_of(const std::string& rule, int32_t sequences) {
  EngineOptions options;
  options.threads = 1;
  options.max_sequences = sequences;
  options.context = 2048;
  options.kv.policy = rule;
  return options;
}

/// The steps from where all sequences decode until one has ended.
std::vector<Step> run(const std::shared_ptr<const Model>& model, const std::string& rule,
                      int32_t sequences, int64_t positions) {
  EngineOptions options = options_of(rule, sequences);
  const KvStats pool = Engine(model, options_of("full", 1)).kv_stats();
  const int64_t position_bytes = pool.page_bytes * pool.pages_per_block / pool.block_size;
  options.kv.budget_bytes = static_cast<uint64_t>(positions * sequences * position_bytes);
  double pass_began = 0;
  const test::BeforePass hook([&] { pass_began = processor_seconds(); });
  const auto inside = make_engine_impl(model, options, test::make_hooked_backend);
  Engine engine(inside);
  for (int32_t i = 0; i < sequences; ++i) {
    std::vector<TokenId> prompt;
    for (int32_t p = 0; p < 40 + 2 * i; ++p) prompt.push_back((p * 7919 + i * 31) % 40000 + 1000);
    GenerateOptions asked;
    asked.max_tokens = static_cast<int32_t>(2 * positions);
    asked.sampling.temperature = 0;
    asked.ignore_stop_tokens = true;
    engine.add(prompt, asked);
  }
  std::vector<Step> steps;
  bool all_began = false;
  for (;;) {
    const int64_t falls = engine.kv_stats().budget_falls;
    pass_began = 0;
    const double begin = processor_seconds();
    if (!engine.step()) break;
    const double end = processor_seconds();
    const auto& requests = inside->scheduler->requests();
    all_began |= std::all_of(requests.begin(), requests.end(),
                             [](const auto& request) { return request->decoding(); });
    if (static_cast<int32_t>(requests.size()) < sequences) break;
    if (!all_began || pass_began == 0) continue;
    steps.push_back({pass_began - begin, end - begin, engine.kv_stats().budget_falls - falls});
  }
  return steps;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void print(const std::string& rule, const std::vector<Step>& steps) {
  std::vector<double> plain, all;
  double falls_took = 0, with_falls = 0, worst = 0;
  int64_t falls = 0, n = 0;
  for (const Step& step : steps) {
    all.push_back(step.all);
    if (step.falls == 0) plain.push_back(step.deciding);
  }
  const double usual = median(plain);
  for (const Step& step : steps) {
    if (step.falls == 0) continue;
    ++n;
    falls += step.falls;
    falls_took += step.deciding - usual;
    with_falls += step.all;
    worst = std::max(worst, (step.deciding - usual) / step.all);
  }
  fmt::print("| `{}` | {} | {} | {} | {:.1f} ms | {:.3f} ms | {:.3f} ms | {:.2f} % | {:.2f} % |\n",
             rule, steps.size(), n, falls, 1e3 * median(all), 1e3 * usual,
             n == 0 ? 0 : 1e3 * falls_took / static_cast<double>(n),
             with_falls == 0 ? 0 : 100 * falls_took / with_falls, 100 * worst);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: fall_cost MODEL [SEQUENCES [POSITIONS [RULE...]]]\n");
    return 2;
  }
  const auto model = Model::load(argv[1]);
  const int32_t sequences = argc > 2 ? std::atoi(argv[2]) : 32;
  const int64_t positions = argc > 3 ? std::atoll(argv[3]) : 256;
  std::vector<std::string> rules(argv + std::min(argc, 4), argv + argc);
  if (rules.empty()) rules = {"lru", "h2o", "sink:4", "cake:h2o", "pyramid:h2o", "0-9=full,*=lru"};
  fmt::print(
      "| rule | steps | with falls | falls | a step | its decisions | falls, a step | share | most "
      "|\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  for (const std::string& rule : rules) print(rule, run(model, rule, sequences, positions));
}
