// The CPU backend: weights, steps and pages in the host's memory.
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/cpu_pages.h"
#include "backend/cpu/cpu_steps.h"
#include "backend/cpu/cpu_weights.h"
#include "backend/devices.h"
#include "core/fail.h"
#include "core/system.h"

namespace paddock {
namespace {

cpu::Isa parse_isa(const std::string& name) {
  if (name.empty()) return cpu::best_isa();
  for (const cpu::Isa isa :
       {cpu::Isa::kPortable, cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAvx512Bf16}) {
    if (name != cpu::isa_name(isa)) continue;
    if (!cpu::isa_supported(isa)) {
      fail(ErrorCode::kInvalidArgument, "isa '{}' is not supported by this processor or build",
           name);
    }
    return isa;
  }
  fail(ErrorCode::kInvalidArgument,
       "isa '{}' is unknown; use portable, avx2, avx512 or avx512_bf16", name);
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options)
      : device_{cpu::kernels(parse_isa(options.isa)), options.reference,
                ThreadPool(options.threads)},
        weights_(device_),
        steps_(device_, pages_) {}

  WeightStore& weights() override { return weights_; }
  StepOps& ops() override { return steps_; }
  PageStore& pages() override { return pages_; }

  DeviceMemory memory() const override { return {"cpu", 0, 0, 0, 0}; }
  uint64_t available_bytes() const override { return available_memory(); }
  uint64_t reserve_bytes(const BackendLimits& limits) const override {
    return CpuPages::bytes(limits) + steps_.bytes(limits);
  }
  void reserve(const BackendLimits& limits) override {
    pages_.reserve(limits);
    steps_.reserve(limits);
  }
  Buffer make_buffer(int64_t rows, int64_t cols) override {
    buffers_.emplace_back(static_cast<uint64_t>(rows * cols) * sizeof(float), "activations");
    return {reinterpret_cast<float*>(buffers_.back().data()), cols, cols};
  }

 private:
  CpuDevice device_;
  CpuWeights weights_;
  CpuPages pages_;
  CpuSteps steps_;
  std::vector<AlignedBuffer> buffers_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace paddock
