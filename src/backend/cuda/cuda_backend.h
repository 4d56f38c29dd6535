// The CUDA backend: every operation of backend.h as our kernels and dense products on one device.
#pragma once

#include <memory>

#include "backend/cuda/device_runtime.h"
#include "backend/devices.h"

namespace paddock {

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options,
                                           std::shared_ptr<cuda::DeviceRuntime> runtime);

}  // namespace paddock
