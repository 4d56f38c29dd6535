// Linked into a test program, makes engines that name no device run on an emulated CUDA device.
#include <gtest/gtest.h>

#include "backend/backend.h"
#include "support/simt/harness.h"
#include "support/simt/simt_runtime.h"

namespace paddock::simt {
namespace {

class OnEmulatedCuda final : public testing::Environment {
  void SetUp() override {
    emulated_ = std::make_unique<EmulatedCuda>();
    set_auto_device("cuda");
  }
  void TearDown() override {
    EXPECT_EQ(take_report_text(), "");
    set_auto_device("cpu");
    emulated_ = nullptr;
  }
  std::unique_ptr<EmulatedCuda> emulated_;
};
[[maybe_unused]] const testing::Environment* const on_emulated_cuda =
    testing::AddGlobalTestEnvironment(new OnEmulatedCuda);

}  // namespace
}  // namespace paddock::simt
