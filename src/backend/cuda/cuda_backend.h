// The CUDA backend: weights, steps and pages on one device.
#pragma once

#include <memory>

#include "backend/cuda/device_runtime.h"
#include "backend/devices.h"

namespace paddock {

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options,
                                           std::shared_ptr<cuda::DeviceRuntime> runtime);

}  // namespace paddock
