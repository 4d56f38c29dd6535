// Linked into a test program, makes engines that name no device run on CUDA: on an emulated device,
// or (PADDOCK_GPU_TEST) on a real one.
#include <gtest/gtest.h>

#include "core/fail.h"
#include "engine/engine_impl.h"
#include "engine/plan.h"
#include "support/golden.h"
#include "support/simt/harness.h"
#if !defined(PADDOCK_GPU_TEST)
#include "support/simt/simt_runtime.h"
#endif

namespace paddock::test {

const bool kOnCuda = true;
#if defined(PADDOCK_GPU_TEST)
const bool kEmulated = false;
#else
const bool kEmulated = true;
using simt::make_backend;
#endif
const char* const kDevice = "cuda";

std::shared_ptr<Engine::Impl> parts(std::shared_ptr<const Model> model,
                                    const EngineOptions& options) {
  if (options.device != "auto") return make_engine_impl(std::move(model), options, make_backend);
  return at_the_edge([&] {  // where it belongs to an engine's making, too
    EngineOptions here = options;
    here.device = kDevice;
    return make_engine_impl(std::move(model), here, make_backend);
  });
}

EnginePlan plan_of(const std::string& path, const EngineOptions& options) {
  EngineOptions here = options;
  if (here.device == "auto") here.device = kDevice;
  return plan_engine(*read_headers(path), here, {}, make_backend);
}

}  // namespace paddock::test

namespace paddock::simt {
namespace {

class OnCuda final : public testing::Environment {
  void SetUp() override {
#if !defined(PADDOCK_GPU_TEST)
    set_race_checks(false);  // tests of kernels and of cuda_engine_test look for them
#endif
  }
  void TearDown() override { EXPECT_EQ(take_report_text(), ""); }
};
[[maybe_unused]] const testing::Environment* const on_cuda =
    testing::AddGlobalTestEnvironment(new OnCuda);

}  // namespace
}  // namespace paddock::simt
