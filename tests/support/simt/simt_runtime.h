// A device for the CUDA backend without a GPU: kernels run on the harness, dense products in loops.
#pragma once

#include <memory>

#include "backend/cuda/device_runtime.h"
#include "backend/devices.h"

namespace paddock::simt {

/// `free_bytes`: what it says it has; allocations beyond it fail.
std::shared_ptr<cuda::DeviceRuntime> make_simt_runtime(uint64_t free_bytes = uint64_t{1} << 30);

/// In the place of paddock::make_backend: "cuda" and "cuda:0" are emulated devices.
std::unique_ptr<Backend> make_backend(const std::string& device, const BackendOptions& options);

/// Bytes copied to the host so far, from all emulated devices.
int64_t copied_out_bytes();
/// Recorded steps replayed so far, on all emulated devices.
int64_t replayed_steps();
/// From now on a device has no memory for recordings, or has it again.
void fail_recordings(bool all);

/// Whether an error costs the process its device, as an illegal access does.
void lose_devices(bool all);
/// After this many more launches, one fails as a device would; -1: never.
void fail_launch_after(int64_t launches);

}  // namespace paddock::simt
