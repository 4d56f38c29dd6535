// Linked into gpu_test: without a device nothing runs, and the program says so with exit 77.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

namespace paddock::simt {
namespace {

class NeedsDevice final : public testing::Environment {
  void SetUp() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return;
    std::puts("SKIPPED: no CUDA device");
    std::exit(77);
  }
};
[[maybe_unused]] const testing::Environment* const needs_device =
    testing::AddGlobalTestEnvironment(new NeedsDevice);

}  // namespace
}  // namespace paddock::simt
