// What a stranger's program does with an installed Paddock.
#include <paddock/paddock.h>
#include <paddock/testing.h>

#include <cstdio>
#include <cstring>

namespace {

/// A policy of the stranger's own: the oldest blocks leave.
class Oldest final : public paddock::EvictionPolicy {
 public:
  std::string name() const override { return "oldest:128"; }
  paddock::TrimSchedule schedule(int32_t, int32_t) const override { return {.budget = 128}; }
  void trim(const paddock::LayerView& view, int64_t n_tokens,
            std::vector<paddock::Victim>& victims) const override {
    paddock::rank_blocks(view, n_tokens, victims, [&](int32_t i) {
      return static_cast<double>(view.blocks[i].first_position);
    });
  }
};

/// The program of README.md.
void speak(const char* path) {
  auto model = paddock::Model::load(path);
  paddock::Engine engine(model, {.context = 2048, .kv = {.policy = "sink:4+1020"}});
  auto result = engine.generate("Once upon a time", {.max_tokens = 64});
  std::puts(result.text.c_str());
}

}  // namespace

int main() {
  if (std::strcmp(paddock::version(), "0.1.0") != 0) return 1;
  try {
    paddock::make_policy("nonsense");
    return 2;
  } catch (const paddock::Error& e) {
    if (e.code() != paddock::ErrorCode::kInvalidArgument) return 3;
  }
  const auto make = [](auto...) { return std::make_shared<Oldest>(); };
  const paddock::ConformanceReport report = paddock::check_policy(make);
  std::fputs(paddock::to_text(report).c_str(), stdout);
  if (!report.conforms() || !report.clean() || report.decisions == 0) return 6;
  if (paddock::make_policy("mine:128", {{"mine", make}})->name() != "oldest:128") return 7;
  try {
    speak("/nonexistent.gguf");
    return 4;
  } catch (const paddock::Error& e) {
    std::puts(e.what());
    return e.code() == paddock::ErrorCode::kNotFound ? 0 : 5;
  }
}
