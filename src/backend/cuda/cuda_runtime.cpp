// DeviceRuntime over the CUDA runtime and cuBLAS.
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <vector>

#include "backend/cuda/device_runtime.h"
#include "core/fail.h"

namespace paddock::cuda {
namespace {

constexpr int kLeastMajor = 8;  // compute capability 8.0: cp.async and bfloat16 tensor cores

/// Device memory that cuBLAS asks for to be at its best on Hopper; less would do elsewhere. Given
/// to it, because in a recording it could not take its own.
constexpr size_t kCublasBytes = size_t{32} << 20;

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
    if (properties.major < kLeastMajor) {
      fail(ErrorCode::kDevice,
           "{} has compute capability {}.{}; this backend needs {}.0 (Ampere) or newer; use cpu",
           name_, properties.major, properties.minor, kLeastMajor);
    }
    use();
    expect(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    if (cublasCreate(&cublas_) != CUBLAS_STATUS_SUCCESS) {
      cudaStreamDestroy(stream_);
      fail(ErrorCode::kDevice, "{}: cuBLAS cannot be started (is its memory used up?)", name_);
    }
    if (cudaMalloc(&cublas_memory_, kCublasBytes) != cudaSuccess) {
      cublasDestroy(cublas_);
      cudaStreamDestroy(stream_);
      fail(ErrorCode::kOutOfMemory, "{}: {} bytes for cuBLAS cannot be had", name_, kCublasBytes);
    }
    cublasSetStream(cublas_, stream_);
    cublasSetWorkspace(cublas_, cublas_memory_, kCublasBytes);
  }

  ~CudaRuntime() override {
    cudaSetDevice(index_);
    for (const cudaEvent_t event : marks_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    cublasDestroy(cublas_);
    cudaFree(cublas_memory_);
    cudaStreamDestroy(stream_);
  }

  std::string name() const override { return name_; }
  Stream stream() const override { return stream_; }

  DeviceMemoryInfo memory() const override {
    size_t free = 0;
    size_t total = 0;
    use();
    expect(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return {free, total};
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
  void fill(void* device, uint8_t byte, uint64_t bytes) override {
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
  void check(int error, const char* kernel) override {
    if (error != 0) expect(static_cast<cudaError_t>(error), kernel);
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
  /// The current device belongs to the thread, and other engines may use other devices.
  void use() const { expect(cudaSetDevice(index_), "cudaSetDevice"); }
  void expect(cudaError_t error, const char* what) const {
    if (error == cudaSuccess) return;
    fail(ErrorCode::kDevice, "{}: {} failed: {} ({})", name_, what, cudaGetErrorString(error),
         cudaGetErrorName(error));
  }

  int index_;
  std::string name_;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t cublas_ = nullptr;
  void* cublas_memory_ = nullptr;
  bool recording_ = false;
  std::vector<cudaEvent_t> marks_;
};

}  // namespace

std::shared_ptr<DeviceRuntime> open_device(int index) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    fail(ErrorCode::kDevice, "device 'cuda:{}' is not available: {}; use cpu", index,
         error != cudaSuccess ? cudaGetErrorString(error) : "no CUDA device was found");
  }
  if (index >= count) {
    fail(ErrorCode::kDevice, "device 'cuda:{}' does not exist: devices go from cuda:0 to cuda:{}",
         index, count - 1);
  }
  return std::make_shared<CudaRuntime>(index);
}

}  // namespace paddock::cuda
