// support/simt/harness.h on a real device, so that the kernels' own tests run there unchanged. A
// device finds no races and takes no orders: there is one schedule and no mutant.
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <cstdlib>
#include <stdexcept>

#include "support/simt/harness.h"

namespace paddock::simt {
namespace {

void expect(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(fmt::format("{}: {}", what, cudaGetErrorString(error)));
  }
}

}  // namespace

struct Region {
  void* data = nullptr;
  size_t bytes = 0;
};

/// What nobody writes is NaN; with PADDOCK_LEAVE_UNWRITTEN it is left alone, for
/// compute-sanitizer's initcheck to see.
DeviceMemory::DeviceMemory(size_t bytes, const std::string& name)
    : region_(new Region{nullptr, bytes}) {
  const cudaError_t error = cudaMalloc(&region_->data, bytes > 0 ? bytes : 1);
  if (error != cudaSuccess) {
    delete region_;
    cudaGetLastError();  // or the next launch would be blamed for it
    expect(error, name.c_str());
  }
  if (std::getenv("PADDOCK_LEAVE_UNWRITTEN") == nullptr) set_unwritten();
}
DeviceMemory::~DeviceMemory() {
  cudaFree(region_->data);
  delete region_;
}
void* DeviceMemory::address() const { return region_->data; }
size_t DeviceMemory::bytes() const { return region_->bytes; }
void DeviceMemory::write(size_t offset, const void* from, size_t bytes) {
  expect(cudaMemcpy(static_cast<uint8_t*>(region_->data) + offset, from, bytes,
                    cudaMemcpyHostToDevice),
         "a copy to the device");
}
void DeviceMemory::read(size_t offset, void* to, size_t bytes) const {
  expect(
      cudaMemcpy(to, static_cast<uint8_t*>(region_->data) + offset, bytes, cudaMemcpyDeviceToHost),
      "a copy from the device");
}
bool DeviceMemory::written(size_t, size_t) const { return true; }
void DeviceMemory::set_unwritten() {
  expect(cudaMemset(region_->data, 0xFF, region_->bytes), "a fill");
}
void DeviceMemory::freeze() {}

int32_t multiprocessors() {
  int count = 0;
  expect(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0), "a question");
  return count;
}

std::vector<Report> take_reports() { return {}; }
std::string take_report_text() {
  const cudaError_t error = cudaDeviceSynchronize();
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}
void set_schedule(Schedule) {}
std::string to_string(const Schedule&) { return "as the device likes"; }
std::vector<Schedule> all_schedules() { return {Schedule{}}; }
void for_each_schedule(const std::function<void(const std::string&)>& run) { run("device"); }
std::vector<std::string> sites_met() { return {}; }
void forget_sites() {}
void set_mutant(const std::string&) {}
std::vector<std::string> surviving_mutants(const std::function<bool()>& run) {
  if (run()) return {};
  return {"unmutated"};
}

}  // namespace paddock::simt
