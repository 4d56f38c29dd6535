// DeviceRuntime over the CUDA runtime and cuBLAS.
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <deque>
#include <vector>

#include "backend/cuda/device_runtime.h"
#include "backend/cuda/nvml.h"
#include "core/fail.h"

namespace paddock::cuda {
namespace {

constexpr int kLeastMajor = 8;  // compute capability 8.0: cp.async and bfloat16 tensor cores

/// Device memory that cuBLAS asks for to be at its best on Hopper; less would do elsewhere. Given
/// to it, because in a recording it could not take its own.
constexpr size_t kCublasBytes = size_t{32} << 20;
/// Free memory that is not planned with: allocations are rounded up (to 2 MiB where they are
/// large), kernels and recordings take some when they are first used.
constexpr uint64_t kHeadroom = uint64_t{512} << 20;

class CudaRecording final : public Recording {
 public:
  explicit CudaRecording(cudaGraphExec_t graph) : graph_(graph) {}
  ~CudaRecording() override { cudaGraphExecDestroy(graph_); }
  cudaGraphExec_t graph() const { return graph_; }

 private:
  cudaGraphExec_t graph_;
};

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int index) : index_(index) {
    cudaDeviceProp properties{};
    expect(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    name_ = fmt::format("cuda:{} ({})", index, properties.name);
    multiprocessors_ = properties.multiProcessorCount;
    if (properties.major < kLeastMajor) {
      fail(ErrorCode::kDevice,
           "{} has compute capability {}.{}; this backend needs {}.0 (Ampere) or newer; use cpu",
           name_, properties.major, properties.minor, kLeastMajor);
    }
    if (properties.sharedMemPerBlockOptin < kSharedMemoryNeeded) {
      fail(
          ErrorCode::kDevice,
          "{} gives a block {} bytes of shared memory; this backend needs {} (A100, H100 and their "
          "kin have them); use cpu",
          name_, properties.sharedMemPerBlockOptin, kSharedMemoryNeeded);
    }
    try {
      open();
    } catch (...) {
      close();
      throw;
    }
  }
  ~CudaRuntime() override { close(); }

  std::string name() const override { return name_; }
  int32_t multiprocessors() const override { return multiprocessors_; }
  Stream stream() const override {
    use();  // a launch follows
    return stream_;
  }

  DeviceMemoryInfo memory() const override {
    size_t free = 0;
    size_t total = 0;
    use();
    expect(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return {free, total, kHeadroom};
  }

  void* allocate(uint64_t bytes, const char* what) override {
    void* memory = nullptr;
    use();
    if (cudaMalloc(&memory, bytes) == cudaSuccess) return memory;
    cudaGetLastError();
    fail(ErrorCode::kOutOfMemory, "{}: {} needs {} bytes but only {} are free", name_, what, bytes,
         this->memory().free_bytes);
  }
  void release(void* memory) noexcept override {
    cudaSetDevice(index_);
    cudaFree(memory);
  }
  void* allocate_pinned(uint64_t bytes, const char* what) override {
    void* memory = nullptr;
    use();
    if (cudaMallocHost(&memory, bytes) == cudaSuccess) return memory;
    cudaGetLastError();
    fail(ErrorCode::kOutOfMemory, "{}: {} bytes of pinned host memory for {} cannot be had", name_,
         bytes, what);
  }
  void release_pinned(void* memory) noexcept override { cudaFreeHost(memory); }

  void copy_in(void* device, const void* host, uint64_t bytes) override {
    use();
    expect(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "a copy to it");
  }
  void copy_out(void* host, const void* device, uint64_t bytes) override {
    use();
    expect(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "a copy from it");
  }
  void copy_within(void* to, const void* from, uint64_t bytes) override {
    use();
    expect(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "a copy within it");
  }
  void fill(void* device, uint8_t byte, uint64_t bytes) override {
    if (bytes == 0) return;
    use();
    expect(cudaMemsetAsync(device, byte, bytes, stream_), "a fill");
  }

  void gemm(const GemmArgs& a) override {
    use();
    const float one = 1.0F;
    const float beta = a.accumulate ? 1.0F : 0.0F;
    const bool exact = a.type == DType::kF32;
    const cudaDataType_t type = exact ? CUDA_R_32F : CUDA_R_16BF;
    // Column by column, as cuBLAS counts: y^T [rows, n] = (w^T)^T x^T.
    const cublasStatus_t status = cublasGemmEx(
        cublas_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(a.rows), a.n, static_cast<int>(a.cols),
        &one, a.w, type, static_cast<int>(a.cols), a.x, type, static_cast<int>(a.x_stride), &beta,
        a.y, CUDA_R_32F, static_cast<int>(a.y_stride),
        exact ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS) {
      fail(ErrorCode::kDevice, "{}: a product of {} x {} by {} tokens failed: {}", name_, a.rows,
           a.cols, a.n, cublasGetStatusString(status));
    }
  }

  void synchronize() override {
    use();
    expect(cudaStreamSynchronize(stream_), "a step");
  }
  bool usable() noexcept override {
    cudaGetLastError();
    return cudaSetDevice(index_) == cudaSuccess && cudaStreamSynchronize(stream_) == cudaSuccess;
  }
  void check(int error, const char* kernel) override {
    if (error != 0) expect(static_cast<cudaError_t>(error), kernel);
  }

  DeviceMemory driver_view() const override {
    DeviceMemory view{name_, 0, 0, 0, 0};
    if (nvml_ != nullptr) {
      if (const auto memory = nvml_->memory()) {
        view.process_bytes = memory->process_bytes;
        view.free_bytes = memory->free_bytes;
        view.total_bytes = memory->total_bytes;
        return view;
      }
    }
    // Any thread may ask, and its own current device is none of our business.
    int before = 0;
    size_t free = 0;
    size_t total = 0;
    if (cudaGetDevice(&before) == cudaSuccess && cudaSetDevice(index_) == cudaSuccess &&
        cudaMemGetInfo(&free, &total) == cudaSuccess) {
      view.free_bytes = free;
      view.total_bytes = total;
    }
    cudaSetDevice(before);
    cudaGetLastError();
    return view;
  }

  void side_waits() override {
    use();
    expect(cudaEventRecord(meeting_, stream_), "cudaEventRecord");
    expect(cudaStreamWaitEvent(side_, meeting_, 0), "cudaStreamWaitEvent");
  }
  void wait_for_side() override {
    use();
    expect(cudaEventRecord(meeting_, side_), "cudaEventRecord");
    expect(cudaStreamWaitEvent(stream_, meeting_, 0), "cudaStreamWaitEvent");
  }
  void side_copy_in(void* device, const void* host, uint64_t bytes) override {
    use();
    expect(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, side_), "a copy to it");
  }
  void side_copy_out(void* host, const void* device, uint64_t bytes) override {
    use();
    expect(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, side_), "a copy from it");
  }
  int64_t side_mark() override {
    use();
    const int64_t mark = side_first_ + static_cast<int64_t>(side_marks_.size());
    cudaEvent_t event = nullptr;
    if (!spare_events_.empty()) {
      event = spare_events_.back();
      spare_events_.pop_back();
    } else {
      expect(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    }
    side_marks_.push_back(event);
    expect(cudaEventRecord(event, side_), "cudaEventRecord");
    return mark;
  }
  bool side_reached(int64_t mark) override {
    use();
    while (!side_marks_.empty() && side_first_ <= mark) {
      const cudaError_t error = cudaEventQuery(side_marks_.front());
      if (error == cudaErrorNotReady) {
        cudaGetLastError();
        return false;
      }
      expect(error, "a copy of pages");
      spare_events_.push_back(side_marks_.front());
      side_marks_.pop_front();
      ++side_first_;
    }
    return true;
  }
  void side_synchronize(int64_t mark) override {
    if (side_reached(mark)) return;
    expect(cudaEventSynchronize(side_marks_[static_cast<size_t>(mark - side_first_)]),
           "a copy of pages");
  }

  void begin_recording() override {
    use();
    expect(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "a recording");
    recording_ = true;
  }
  std::unique_ptr<Recording> end_recording() override {
    use();
    recording_ = false;
    cudaGraph_t graph = nullptr;
    expect(cudaStreamEndCapture(stream_, &graph), "a recording");
    cudaGraphExec_t exec = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    cudaGetLastError();
    expect(error, "a recording");
    return std::make_unique<CudaRecording>(exec);
  }
  void discard_recording() noexcept override {
    recording_ = false;
    cudaSetDevice(index_);
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    cudaGetLastError();
  }
  void replay(Recording& recording) override {
    use();
    expect(cudaGraphLaunch(static_cast<CudaRecording&>(recording).graph(), stream_), "a step");
  }

  void mark(int number) override {
    if (marks_.empty()) marks_.resize(kMarks, nullptr);
    use();
    if (marks_[number] == nullptr) expect(cudaEventCreate(&marks_[number]), "cudaEventCreate");
    expect(cudaEventRecordWithFlags(marks_[number], stream_,
                                    recording_ ? cudaEventRecordExternal : cudaEventRecordDefault),
           "cudaEventRecord");
  }
  int64_t nanoseconds(int from, int to) override {
    float milliseconds = 0;
    expect(cudaEventElapsedTime(&milliseconds, marks_[from], marks_[to]), "cudaEventElapsedTime");
    return static_cast<int64_t>(static_cast<double>(milliseconds) * 1e6);
  }

 private:
  void open() {
    use();
    expect(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    expect(cudaStreamCreateWithFlags(&side_, cudaStreamNonBlocking), "cudaStreamCreate");
    expect(cudaEventCreateWithFlags(&meeting_, cudaEventDisableTiming), "cudaEventCreate");
    char bus_id[32] = {};
    if (cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), index_) == cudaSuccess) {
      nvml_ = Nvml::open(bus_id);
    }
    cublas_memory_ = allocate(kCublasBytes, "the workspace of cuBLAS");
    if (cublasCreate(&cublas_) != CUBLAS_STATUS_SUCCESS ||
        cublasSetStream(cublas_, stream_) != CUBLAS_STATUS_SUCCESS ||
        cublasSetWorkspace(cublas_, cublas_memory_, kCublasBytes) != CUBLAS_STATUS_SUCCESS) {
      fail(ErrorCode::kDevice, "{}: cuBLAS cannot be started (is its memory used up?)", name_);
    }
    // Its kernels are loaded when they are first needed: better now, before memory is counted.
    constexpr int64_t kEach = 64 * 64;
    auto* m = static_cast<float*>(allocate(3 * kEach * sizeof(float), "a first product"));
    try {
      fill(m, 0, 3 * kEach * sizeof(float));
      for (const DType type : {DType::kBF16, DType::kF32}) {
        gemm({m, m + kEach, 64, type, m + 2 * kEach, 64, 64, 64, 64, false});
      }
      synchronize();
    } catch (...) {
      release(m);
      throw;
    }
    release(m);
  }
  void close() noexcept {
    cudaSetDevice(index_);
    for (const cudaEvent_t event : marks_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    for (const cudaEvent_t event : side_marks_) cudaEventDestroy(event);
    for (const cudaEvent_t event : spare_events_) cudaEventDestroy(event);
    if (meeting_ != nullptr) cudaEventDestroy(meeting_);
    if (side_ != nullptr) cudaStreamDestroy(side_);
    if (cublas_ != nullptr) cublasDestroy(cublas_);
    if (cublas_memory_ != nullptr) cudaFree(cublas_memory_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
    cudaGetLastError();
  }
  /// The current device belongs to the thread, and other engines may use other devices.
  void use() const { expect(cudaSetDevice(index_), "cudaSetDevice"); }
  void expect(cudaError_t error, const char* what) const {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // said here, not to whoever asks next
    fail(ErrorCode::kDevice, "{}: {} failed: {} ({})", name_, what, cudaGetErrorString(error),
         cudaGetErrorName(error));
  }

  int index_;
  std::string name_;
  int32_t multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  cudaStream_t side_ = nullptr;
  cudaEvent_t meeting_ = nullptr;       // where one stream waits for the other
  std::deque<cudaEvent_t> side_marks_;  // marks from side_first_ on that were not yet seen reached
  int64_t side_first_ = 1;
  std::vector<cudaEvent_t> spare_events_;
  std::unique_ptr<Nvml> nvml_;
  cublasHandle_t cublas_ = nullptr;
  void* cublas_memory_ = nullptr;
  bool recording_ = false;
  std::vector<cudaEvent_t> marks_;
};

std::string why_none(cudaError_t error) {
  cudaGetLastError();
  int driver = 0;
  const bool known = cudaDriverGetVersion(&driver) == cudaSuccess;
  if (known && driver == 0) return "no NVIDIA driver is installed";
  if (known && error == cudaErrorInsufficientDriver) {
    return fmt::format("the driver knows CUDA {}.{} but this build needs {}.{}", driver / 1000,
                       driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  }
  return error == cudaSuccess ? "no CUDA device was found" : cudaGetErrorString(error);
}

}  // namespace

std::shared_ptr<DeviceRuntime> open_device(int index) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    fail(ErrorCode::kDevice, "device 'cuda:{}' is not available: {}; use cpu", index,
         why_none(error));
  }
  if (index >= count) {
    fail(ErrorCode::kDevice, "device 'cuda:{}' does not exist: devices go from cuda:0 to cuda:{}",
         index, count - 1);
  }
  return std::make_shared<CudaRuntime>(index);
}

}  // namespace paddock::cuda
