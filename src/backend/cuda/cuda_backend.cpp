#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <vector>

#include "backend/cuda/cuda_steps.h"
#include "backend/cuda/cuda_weights.h"
#include "backend/cuda/device_pages.h"
#include "backend/cuda/guarded_device.h"

namespace paddock {
namespace {

class CudaBackend final : public Backend {
 public:
  CudaBackend(const BackendOptions& options, const std::shared_ptr<cuda::DeviceRuntime>& runtime)
      : device_(runtime),
        weights_(runtime),
        pages_(device_),
        steps_(device_, pages_, options.reference) {}

  ~CudaBackend() override {
    try {
      runtime().synchronize();  // nothing may be under way when memory goes
    } catch (const Error&) {
    }
  }

  WeightStore& weights() override { return weights_; }
  StepOps& ops() override { return steps_; }
  PageStore& pages() override { return pages_; }

  DeviceMemory memory() const override { return runtime().driver_view(); }
  uint64_t available_bytes() const override {
    const cuda::DeviceMemoryInfo memory = runtime().memory();
    return memory.free_bytes - std::min(memory.free_bytes, memory.headroom_bytes);
  }

  uint64_t reserve_bytes(const BackendLimits& limits) const override {
    return cuda::DevicePages::bytes(limits) + steps_.bytes(limits);
  }
  void reserve(const BackendLimits& limits) override {
    steps_.settle();
    pages_.reserve(limits);
    steps_.reserve(limits);
  }

  Buffer make_buffer(int64_t rows, int64_t cols) override {
    const auto bytes = static_cast<uint64_t>(rows * cols) * sizeof(float);
    buffers_.emplace_back(device_.runtime(), bytes, "activations");
    runtime().fill(buffers_.back().as<float>(), 0, bytes);
    return {buffers_.back().as<float>(), cols, cols};
  }

 private:
  cuda::DeviceRuntime& runtime() const { return *device_.runtime(); }

  cuda::GuardedDevice device_;
  cuda::CudaWeights weights_;
  cuda::DevicePages pages_;
  cuda::CudaSteps steps_;
  std::vector<cuda::DeviceArray> buffers_;
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options,
                                           std::shared_ptr<cuda::DeviceRuntime> runtime) {
  return std::make_unique<CudaBackend>(options, runtime);
}

}  // namespace paddock
