// Which backend a device's name means.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"

namespace paddock {

struct BackendOptions {
  bool reference = false;  // Precision::kReference
  int32_t threads = 1;     // CPU only
  std::string isa;         // CPU only; empty: the best
};

enum class DeviceKind { kCpu, kCuda };
/// What a device's name says.
struct DeviceName {
  DeviceKind kind = DeviceKind::kCpu;
  int32_t index = 0;  // among those of its kind
};
/// Of "cpu", "cuda" or "cuda:N". Error kInvalidArgument for other names.
DeviceName parse_device(const std::string& name);

/// Error kInvalidArgument for an unknown or unsupported isa.
std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);
/// A backend for "cpu", "cuda" or "cuda:N". Error kInvalidArgument for other names, kDevice where
/// there is no such device.
std::unique_ptr<Backend> make_backend(const std::string& device, const BackendOptions& options);
/// make_backend, or what tests have in its place.
using BackendMaker = std::unique_ptr<Backend> (*)(const std::string& device,
                                                  const BackendOptions& options);

}  // namespace paddock
