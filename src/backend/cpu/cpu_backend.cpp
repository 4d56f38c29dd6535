// The CPU backend: weights, steps and pages in the host's memory.
#include <new>
#include <vector>

#include "backend/cpu/cpu_device.h"
#include "backend/cpu/cpu_pages.h"
#include "backend/cpu/cpu_steps.h"
#include "backend/cpu/cpu_weights.h"
#include "backend/devices.h"
#include "core/fail.h"
#include "core/names.h"
#include "core/system.h"

namespace paddock {

std::vector<std::string> isa_names() try {
  std::vector<std::string> names;
  for (const cpu::Isa isa : cpu::kIsas) {
    if (cpu::isa_supported(isa)) names.emplace_back(cpu::isa_name(isa));
  }
  return names;
} catch (const std::bad_alloc&) {
  fail_no_memory();
}

namespace {

cpu::Isa parse_isa(const std::string& name) {
  if (name.empty()) return cpu::best_isa();
  for (const cpu::Isa isa : cpu::kIsas) {
    if (name != cpu::isa_name(isa)) continue;
    if (cpu::isa_supported(isa)) return isa;
    fail(ErrorCode::kInvalidArgument,
         "isa '{}' is not supported by this processor or build; use {}", name, one_of(isa_names()));
  }
  fail(ErrorCode::kInvalidArgument, "isa '{}' is unknown; use {}", name, one_of(isa_names()));
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
