#include "backend/devices.h"

#include <charconv>

#include "core/fail.h"
#if defined(PADDOCK_HAS_CUDA)
#include "backend/cuda/cuda_backend.h"
#endif

namespace paddock {

DeviceName parse_device(const std::string& name) {
  if (name == "cpu") return {DeviceKind::kCpu, 0};
  if (name == "cuda") return {DeviceKind::kCuda, 0};
  if (name.starts_with("cuda:")) {
    int32_t index = 0;
    const char* end = name.data() + name.size();
    const auto [at, error] = std::from_chars(name.data() + 5, end, index);
    if (error == std::errc() && at == end && index >= 0) return {DeviceKind::kCuda, index};
  }
  fail(ErrorCode::kInvalidArgument, "device '{}' is unknown; use auto, cpu, cuda or cuda:N", name);
}

std::unique_ptr<Backend> make_backend(const std::string& device, const BackendOptions& options) {
  const DeviceName name = parse_device(device);
  switch (name.kind) {
    case DeviceKind::kCpu:
      return make_cpu_backend(options);
    case DeviceKind::kCuda:
      if (!options.isa.empty()) {
        fail(ErrorCode::kInvalidArgument, "isa '{}' chooses CPU kernels, but the device is {}",
             options.isa, device);
      }
#if defined(PADDOCK_HAS_CUDA)
      return make_cuda_backend(options, cuda::open_device(name.index));
#else
      fail(ErrorCode::kDevice,
           "device '{}' is not available: this build has no CUDA backend; use cpu", device);
#endif
  }
  fail(ErrorCode::kInternal, "device '{}' is of no kind", device);
}

}  // namespace paddock
