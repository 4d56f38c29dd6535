// What the NVIDIA driver says about a device's memory (NVML), where its library is found.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace paddock::cuda {

struct NvmlMemory {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
  uint64_t process_bytes = 0;  // of this process; 0: not told (in some containers)
};

/// One device. Safe from any thread.
class Nvml {
 public:
  /// Null if there is no such library or it does not know the device. `pci_bus_id` as
  /// cudaDeviceGetPCIBusId writes it.
  static std::unique_ptr<Nvml> open(const std::string& pci_bus_id,
                                    const char* library = "libnvidia-ml.so.1");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  std::optional<NvmlMemory> memory() const;

 private:
  struct Library;
  Nvml(std::unique_ptr<Library> library, void* device);
  std::unique_ptr<Library> library_;
  void* device_;
};

}  // namespace paddock::cuda
