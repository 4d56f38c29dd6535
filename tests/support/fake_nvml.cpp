// A library with NVML's functions and one device, "0000:0A:00.0", for tests of whoever loads them.
#include <unistd.h>

#include <cstring>

extern "C" {

struct MemoryInfo {
  unsigned long long total, free, used;
};
struct ProcessInfo {
  unsigned int pid;
  unsigned long long used_bytes;
  unsigned int gpu_instance, compute_instance;
};

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** device) {
  static int the_device = 0;
  if (std::strcmp(bus_id, "0000:0A:00.0") != 0) return 6;  // not found
  *device = &the_device;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, MemoryInfo* info) {
  *info = {80000, 60000, 20000};
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned int* count, ProcessInfo* processes) {
  if (*count < 3) return 7;  // too small
  const auto pid = static_cast<unsigned int>(getpid());
  processes[0] = {pid + 1, 5000, 0, 0};
  processes[1] = {pid, 7000, 0, 0};
  processes[2] = {pid, ~0ULL, 0, 0};  // not available
  *count = 3;
  return 0;
}
}
