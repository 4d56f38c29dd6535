// Linked into a test program, makes engines that name no device run on CUDA: on an emulated device,
// or (PADDOCK_GPU_TEST) on a real one.
#include <gtest/gtest.h>

#include "backend/backend.h"
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
#endif

}  // namespace paddock::test

namespace paddock::simt {
namespace {

class OnCuda final : public testing::Environment {
  void SetUp() override {
#if !defined(PADDOCK_GPU_TEST)
    emulated_ = std::make_unique<EmulatedCuda>();
    set_race_checks(false);  // tests of kernels and of cuda_engine_test look for them
#endif
    set_auto_device("cuda");
  }
  void TearDown() override {
    EXPECT_EQ(take_report_text(), "");
    set_auto_device("cpu");
#if !defined(PADDOCK_GPU_TEST)
    emulated_ = nullptr;
#endif
  }
#if !defined(PADDOCK_GPU_TEST)
  std::unique_ptr<EmulatedCuda> emulated_;
#endif
};
[[maybe_unused]] const testing::Environment* const on_cuda =
    testing::AddGlobalTestEnvironment(new OnCuda);

}  // namespace
}  // namespace paddock::simt
