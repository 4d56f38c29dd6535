#include "support/simt/simt_runtime.h"

#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "core/fail.h"
#include "half.h"
#include "support/simt/harness.h"

namespace paddock::simt {
namespace {

int64_t launches_left = -1;
int64_t copied_out = 0;
int64_t replays = 0;
bool recording_fails = false;
bool lost = false;

struct SimtRecording final : cuda::Recording {
  std::vector<std::function<int()>> launches;
};

class SimtRuntime final : public cuda::DeviceRuntime {
 public:
  explicit SimtRuntime(uint64_t free_bytes) : free_(free_bytes), total_(free_bytes) {}

  std::string name() const override { return "cuda:0 (emulated)"; }
  int32_t multiprocessors() const override { return simt::multiprocessors(); }
  Stream stream() const override { return nullptr; }
  cuda::DeviceMemoryInfo memory() const override { return {free_, total_, 0}; }

  void* allocate(uint64_t bytes, const char* what) override {
    not_recording("an allocation");
    if (bytes > free_) {
      fail(ErrorCode::kOutOfMemory, "{}: {} needs {} bytes but only {} are free", name(), what,
           bytes, free_);
    }
    auto memory = std::make_unique<DeviceMemory>(bytes, what);
    void* address = memory->address();
    regions_.emplace(address_of(address), std::move(memory));
    free_ -= bytes;
    return address;
  }
  void release(void* memory) noexcept override {
    const auto at = regions_.find(address_of(memory));
    free_ += at->second->bytes();
    regions_.erase(at);
  }
  void* allocate_pinned(uint64_t bytes, const char*) override { return std::calloc(bytes, 1); }
  void release_pinned(void* memory) noexcept override { std::free(memory); }

  void copy_in(void* device, const void* host, uint64_t bytes) override {
    not_recording("a copy");
    if (bytes == 0) return;
    auto [region, offset] = find(device);
    region->write(offset, host, bytes);
  }
  void copy_out(void* host, const void* device, uint64_t bytes) override {
    not_recording("a copy");
    if (bytes == 0) return;
    copied_out += static_cast<int64_t>(bytes);
    const auto [region, offset] = find(device);
    if (region->written(offset, bytes)) {
      region->read(offset, host, bytes);
      return;
    }
    // Copies of whole arrays may bring along what nobody wrote; it must not look like a value.
    auto* to = static_cast<uint8_t*>(host);
    for (uint64_t i = 0; i < bytes; ++i) {
      to[i] = 0xFF;
      if (region->written(offset + i, 1)) region->read(offset + i, to + i, 1);
    }
  }
  void copy_within(void* to, const void* from, uint64_t bytes) override {
    not_recording("a copy");
    // What nobody wrote is no value in the copy either.
    const auto [source, at] = find(from);
    auto [target, to_at] = find(to);
    for (uint64_t i = 0; i < bytes; ++i) {
      uint8_t byte = 0;
      if (!source->written(at + i, 1)) continue;
      source->read(at + i, &byte, 1);
      target->write(to_at + i, &byte, 1);
    }
  }
  void fill(void* device, uint8_t byte, uint64_t bytes) override {
    const std::vector<uint8_t> values(bytes, byte);
    copy_in(device, values.data(), bytes);
  }

  void gemm(const cuda::GemmArgs& a) override {
    if (recording_ != nullptr) {
      recording_->launches.push_back([this, a] {
        gemm(a);
        return 0;
      });
      return;
    }
    const std::vector<float> w = floats(a.w, a.type, a.rows, a.cols, a.cols);
    const std::vector<float> x = floats(a.x, a.type, a.n, a.cols, a.x_stride);
    for (int32_t t = 0; t < a.n; ++t) {
      std::vector<float> y(a.rows);
      if (a.accumulate) copy_out(y.data(), a.y + t * a.y_stride, y.size() * sizeof(float));
      for (int64_t r = 0; r < a.rows; ++r) {
        float sum = 0.0F;
        for (int64_t c = 0; c < a.cols; ++c) sum += w[r * a.cols + c] * x[t * a.cols + c];
        y[r] = (a.accumulate ? y[r] : 0.0F) + sum;
      }
      copy_in(a.y + t * a.y_stride, y.data(), y.size() * sizeof(float));
    }
  }

  void synchronize() override { not_recording("a wait"); }
  bool usable() noexcept override { return !lost; }

  void check(int error, const char* kernel) override {
    ++first_clock_;
    const std::string report = take_report_text();
    if (!report.empty()) fail(ErrorCode::kInternal, "{}: {}", kernel, report);
    if (error != 0) fail(ErrorCode::kDevice, "{}: {} failed: error {}", name(), kernel, error);
    if (launches_left >= 0 && launches_left-- == 0) {
      fail(ErrorCode::kDevice, "{}: {} failed: an illegal memory access was encountered", name(),
           kernel);
    }
  }

  paddock::DeviceMemory driver_view() const override { return {name(), 0, 0, free_, total_}; }

  // The first stream runs at once, the second as late as it may.
  void side_waits() override { side_waited_at_ = first_clock_; }
  void wait_for_side() override {
    not_recording("a wait");
    run_side(side_asked_);
  }
  void side_copy_in(void* device, const void* host, uint64_t bytes) override {
    side(device, [=, this] { copy_in(device, host, bytes); });
  }
  void side_copy_out(void* host, const void* device, uint64_t bytes) override {
    side(device, [=, this] { copy_out(host, device, bytes); });
  }
  int64_t side_mark() override { return side_asked_; }
  bool side_reached(int64_t mark) override {
    if (side_done_ < mark) run_side(side_done_ + 1);
    return side_done_ >= mark;
  }
  void side_synchronize(int64_t mark) override { run_side(mark); }

  void begin_recording() override {
    if (recording_ != nullptr) fail(ErrorCode::kInternal, "a recording is under way");
    recording_ = std::make_unique<SimtRecording>();
    set_recorder(&recording_->launches);
  }
  std::unique_ptr<cuda::Recording> end_recording() override {
    set_recorder(nullptr);
    std::unique_ptr<SimtRecording> ended = std::move(recording_);
    if (recording_fails) {
      fail(ErrorCode::kDevice, "{}: a recording failed: out of memory", name());
    }
    return ended;
  }
  void discard_recording() noexcept override {
    set_recorder(nullptr);
    recording_ = nullptr;
  }
  void replay(cuda::Recording& recording) override {
    not_recording("replay");
    ++replays;
    for (const auto& launch : static_cast<SimtRecording&>(recording).launches) {
      check(launch(), "a recorded launch");
    }
  }

  void mark(int number) override {
    const auto note = [this, number] {
      marks_[number] = ++clock_;
      return 0;
    };
    recording_ != nullptr ? recording_->launches.push_back(note) : static_cast<void>(note());
  }
  int64_t nanoseconds(int from, int to) override { return marks_[to] - marks_[from]; }

 private:
  template <typename Copy>
  void side(const void* device, const Copy& copy) {
    if (side_waited_at_ != first_clock_) {
      fail(ErrorCode::kInternal, "a copy of pages races with the first stream");
    }
    find(device);
    ++side_asked_;
    side_copies_.push_back(copy);
  }
  void run_side(int64_t mark) {
    while (side_done_ < mark && !side_copies_.empty()) {
      side_copies_.front()();
      side_copies_.pop_front();
      ++side_done_;
    }
  }
  /// What a device refuses while it records.
  void not_recording(const char* what) const {
    if (recording_ == nullptr) return;
    fail(ErrorCode::kDevice, "{}: {} is not permitted while a step is recorded", name(), what);
  }
  static uintptr_t address_of(const void* p) { return reinterpret_cast<uintptr_t>(p); }

  std::pair<DeviceMemory*, size_t> find(const void* device) const {
    auto at = regions_.upper_bound(address_of(device));
    if (at == regions_.begin()) fail(ErrorCode::kInternal, "no device memory lies there");
    --at;
    return {at->second.get(), address_of(device) - at->first};
  }

  /// Rows of a matrix, one after another.
  std::vector<float> floats(const void* from, DType type, int64_t rows, int64_t cols,
                            int64_t stride) {
    std::vector<float> values(rows * cols);
    for (int64_t r = 0; r < rows; ++r) {
      float* to = values.data() + r * cols;
      if (type == DType::kF32) {
        copy_out(to, static_cast<const float*>(from) + r * stride, cols * sizeof(float));
        continue;
      }
      std::vector<uint16_t> row(cols);
      copy_out(row.data(), static_cast<const uint16_t*>(from) + r * stride, cols * 2);
      for (int64_t c = 0; c < cols; ++c) to[c] = bf16_to_f32(row[c]);
    }
    return values;
  }

  std::map<uintptr_t, std::unique_ptr<DeviceMemory>> regions_;
  std::map<int, int64_t> marks_;
  int64_t clock_ = 0;
  int64_t first_clock_ = 0;  // launches and copies of the first stream
  int64_t side_waited_at_ = -1;
  int64_t side_asked_ = 0, side_done_ = 0;
  std::deque<std::function<void()>> side_copies_;
  std::unique_ptr<SimtRecording> recording_;
  uint64_t free_, total_;
};

}  // namespace

std::shared_ptr<cuda::DeviceRuntime> make_simt_runtime(uint64_t free_bytes) {
  return std::make_shared<SimtRuntime>(free_bytes);
}

std::unique_ptr<Backend> make_backend(const std::string& device, const BackendOptions& options) {
  // What is wrong with options and names is said by the one that devices are really made by.
  if (!device.starts_with("cuda") || !options.isa.empty()) {
    return paddock::make_backend(device, options);
  }
  if (device != "cuda" && device != "cuda:0") {
    try {
      return paddock::make_backend(device, options);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kDevice) throw;
      fail(ErrorCode::kDevice, "device '{}' does not exist", device);
    }
  }
  return make_cuda_backend(options, make_simt_runtime());
}

int64_t copied_out_bytes() { return copied_out; }
int64_t replayed_steps() { return replays; }
void fail_recordings(bool all) { recording_fails = all; }
void lose_devices(bool all) { lost = all; }
void fail_launch_after(int64_t launches) { launches_left = launches; }

}  // namespace paddock::simt
