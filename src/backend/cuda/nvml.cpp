#include "backend/cuda/nvml.h"

#include <dlfcn.h>
#include <unistd.h>

#include <vector>

namespace paddock::cuda {
namespace {

// NVML's stable ABI, as its reference documents it: results are 0 for success, devices opaque.
struct MemoryInfo {
  unsigned long long total, free, used;
};
struct ProcessInfo {
  unsigned int pid;
  unsigned long long used_bytes;
  unsigned int gpu_instance, compute_instance;
};
constexpr unsigned long long kNotAvailable = ~0ULL;

}  // namespace

struct Nvml::Library {
  ~Library() {
    if (shutdown != nullptr) shutdown();
    if (handle != nullptr) dlclose(handle);
  }

  template <typename Function>
  bool find(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(handle, name));
    return function != nullptr;
  }
  bool open(const char* file) {
    handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    int (*init)() = nullptr;
    if (handle == nullptr || !find(init, "nvmlInit_v2") ||
        !find(device_by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2") ||
        !find(memory_info, "nvmlDeviceGetMemoryInfo")) {
      return false;
    }
    find(processes, "nvmlDeviceGetComputeRunningProcesses_v3");  // older drivers lack it
    int (*end)() = nullptr;
    if (!find(end, "nvmlShutdown") || init() != 0) return false;
    shutdown = end;
    return true;
  }

  void* handle = nullptr;
  int (*shutdown)() = nullptr;
  int (*device_by_bus_id)(const char*, void**) = nullptr;
  int (*memory_info)(void*, MemoryInfo*) = nullptr;
  int (*processes)(void*, unsigned int*, ProcessInfo*) = nullptr;
};

Nvml::Nvml(std::unique_ptr<Library> library, void* device)
    : library_(std::move(library)), device_(device) {}
Nvml::~Nvml() = default;

std::unique_ptr<Nvml> Nvml::open(const std::string& pci_bus_id, const char* file) {
  auto library = std::make_unique<Library>();
  void* device = nullptr;
  if (!library->open(file) || library->device_by_bus_id(pci_bus_id.c_str(), &device) != 0) {
    return nullptr;
  }
  return std::unique_ptr<Nvml>(new Nvml(std::move(library), device));
}

std::optional<NvmlMemory> Nvml::memory() const {
  MemoryInfo info{};
  if (library_->memory_info(device_, &info) != 0) return std::nullopt;
  NvmlMemory memory{info.free, info.total, 0};
  if (library_->processes == nullptr) return memory;
  unsigned int count = 64;
  std::vector<ProcessInfo> processes(count);
  if (library_->processes(device_, &count, processes.data()) != 0) return memory;
  for (unsigned int i = 0; i < count && i < processes.size(); ++i) {
    const ProcessInfo& p = processes[i];
    if (p.pid != static_cast<unsigned int>(getpid()) || p.used_bytes == kNotAvailable) continue;
    memory.process_bytes += p.used_bytes;
  }
  return memory;
}

}  // namespace paddock::cuda
