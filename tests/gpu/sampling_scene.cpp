// The scene of the sampling kernels: every row is drawn in the same way.
#include <algorithm>
#include <memory>

#include "engine/sampler.h"
#include "gpu/scene.h"

namespace paddock::bench {

Scene sample_scene(int32_t rows, int32_t vocab_size, const SampleRow& how, const Turns& turns) {
  using simt::DeviceBuffer;
  struct State {
    State(int n_sets, int32_t n_rows, int32_t n_logits, const SampleRow& row)
        : logits(static_cast<size_t>(n_sets * int64_t{n_rows} * n_logits), "logits"),
          list(std::vector<SampleRow>(static_cast<size_t>(n_rows), row), "rows"),
          tokens(static_cast<size_t>(n_rows), "tokens"),
          workspace(static_cast<size_t>(cuda::sample_workspace_bytes(n_logits, n_rows) / 8 + 1),
                    "workspace") {
      Pattern::of(DType::kF32).fill(logits);
      workspace.fill(0);
      logits.freeze();
    }
    DeviceBuffer<float> logits;
    DeviceBuffer<SampleRow> list;
    DeviceBuffer<int32_t> tokens;
    DeviceBuffer<uint64_t> workspace;
  };
  const int64_t each = int64_t{rows} * vocab_size;
  Scene scene;
  scene.sets = turns.sets(4 * each);
  scene.work = {4.0 * static_cast<double>(each)};
  scene.room = 0;
  const auto state = std::make_shared<State>(scene.sets, rows, vocab_size, how);
  scene.launch = [=](int set, cuda::Stream stream) {
    return cuda::sample({state->logits.data() + set * each, vocab_size, vocab_size,
                         state->list.data(), state->tokens.data(), state->workspace.data(), rows,
                         how.top_k > 0, how.top_p<1, how.temperature> 0},
                        stream);
  };
  // The part of the rows whose token is not the host's.
  scene.error = [=, launch = scene.launch] {
    state->tokens.set_unwritten();
    if (launch(0, nullptr) != 0) return kBroken;
    const std::vector<int32_t> got = state->tokens.download();
    std::vector<Candidate> scratch(static_cast<size_t>(vocab_size));
    double wrong = 0;
    for (int32_t r = 0; r < rows; ++r) {
      const std::vector<float> logits =
          Pattern::of(DType::kF32).row(int64_t{r} * vocab_size, vocab_size);
      const int32_t want = how.temperature > 0 ? draw_token(logits, how, scratch)
                                               : greedy_choice(logits.data(), vocab_size);
      if (got[static_cast<size_t>(r)] != want) ++wrong;
    }
    return wrong / rows;
  };
  return scene;
}

}  // namespace paddock::bench
