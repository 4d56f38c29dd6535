#include "backend/devices.h"

#include <charconv>

#include "core/fail.h"
#if defined(PADDOCK_HAS_CUDA)
#include "backend/cuda/cuda_backend.h"
#endif

namespace paddock {

std::unique_ptr<Backend> make_backend(const std::string& device, const BackendOptions& options) {
  if (device == "cpu") return make_cpu_backend(options);
  int32_t index = 0;
  bool known = device == "cuda";
  if (device.starts_with("cuda:")) {
    const char* end = device.data() + device.size();
    const auto [at, error] = std::from_chars(device.data() + 5, end, index);
    known = error == std::errc() && at == end && index >= 0;
  }
  if (!known) {
    fail(ErrorCode::kInvalidArgument, "device '{}' is unknown; use auto, cpu, cuda or cuda:N",
         device);
  }
  if (!options.isa.empty()) {
    fail(ErrorCode::kInvalidArgument, "isa '{}' chooses CPU kernels, but the device is {}",
         options.isa, device);
  }
#if defined(PADDOCK_HAS_CUDA)
  return make_cuda_backend(options, cuda::open_device(index));
#else
  fail(ErrorCode::kDevice, "device '{}' is not available: this build has no CUDA backend; use cpu",
       device);
#endif
}

}  // namespace paddock
