#include "gpu/stopwatch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

namespace paddock::bench {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;  // cuBLAS takes none of its own while captured
constexpr double kReplayMilliseconds = 1;             // long beside what events and launches cost
constexpr int kMostLaunches = 2000;                   // in one graph
constexpr int kMostReplays = 41;
constexpr int kLeastReplays = 7;

void expect(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw DeviceLost(fmt::format("{}: {}", what, cudaGetErrorString(error)));
}
void expect(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceLost(fmt::format("{}: {}", what, cublasGetStatusString(status)));
}

}  // namespace

void wait_for_device(const char* what) { expect(cudaDeviceSynchronize(), what); }

Stopwatch::Stopwatch(double milliseconds) : milliseconds_(milliseconds) {
  expect(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  expect(cudaEventCreate(&begin_), "cudaEventCreate");
  expect(cudaEventCreate(&end_), "cudaEventCreate");
  expect(cublasCreate(&cublas_), "cublasCreate");
  expect(cudaMalloc(&workspace_, kWorkspaceBytes), "cudaMalloc");
}
Stopwatch::~Stopwatch() {
  cublasDestroy(cublas_);
  cudaFree(workspace_);
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cudaStreamDestroy(stream_);
}

/// Checks run on another stream than the clock's. Setting a stream takes the workspace away.
void Stopwatch::multiply_on(cuda::Stream stream) const {
  cublasSetStream(cublas_, static_cast<cudaStream_t>(stream));
  cublasSetWorkspace(cublas_, workspace_, kWorkspaceBytes);
}

int Stopwatch::launch_all(const Scene& scene, int count) const {
  for (int i = 0; i < count; ++i) {
    const int error = scene.launch(i % scene.sets, stream_);
    if (error != 0) return error;
  }
  return 0;
}

/// Milliseconds of `count` launches, in a graph or (null) one by one.
float Stopwatch::replay(cudaGraphExec_t graph, const Scene& scene, int count) const {
  expect(cudaEventRecord(begin_, stream_), "cudaEventRecord");
  if (graph != nullptr) {
    expect(cudaGraphLaunch(graph, stream_), "cudaGraphLaunch");
  } else {
    launch_all(scene, count);
  }
  expect(cudaEventRecord(end_, stream_), "cudaEventRecord");
  expect(cudaEventSynchronize(end_), "a launch");
  float milliseconds = 0;
  expect(cudaEventElapsedTime(&milliseconds, begin_, end_), "cudaEventElapsedTime");
  return milliseconds;
}

Times Stopwatch::measure(const Scene& scene) {
  wait_for_device("what came before");  // inputs were copied on another stream
  // The first pass loads kernels; the second says how many launches fill a replay.
  if (const int error = launch_all(scene, scene.sets); error != 0) {
    cudaGetLastError();
    throw std::runtime_error(fmt::format("the launcher returned {} ({})", error,
                                         cudaGetErrorString(static_cast<cudaError_t>(error))));
  }
  expect(cudaStreamSynchronize(stream_), "a launch");
  const double once = std::max(1e-4, double{replay(nullptr, scene, scene.sets)} / scene.sets);
  const double wanted = std::min<double>(kReplayMilliseconds / once, kMostLaunches);
  const int count = std::max(1, static_cast<int>(std::ceil(wanted / scene.sets))) * scene.sets;

  // A capture that fails leaves an error behind that is not the device's.
  cudaGraph_t captured = nullptr;
  cudaGraphExec_t graph = nullptr;
  if (scene.recorded &&
      cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
    const int error = launch_all(scene, count);
    const cudaError_t ended = cudaStreamEndCapture(stream_, &captured);
    if (error != 0 || ended != cudaSuccess || captured == nullptr ||
        cudaGraphInstantiate(&graph, captured, 0) != cudaSuccess) {
      graph = nullptr;
    }
  }
  cudaGetLastError();
  const std::shared_ptr<void> cleanup(nullptr, [&](void*) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
    if (captured != nullptr) cudaGraphDestroy(captured);
  });

  replay(graph, scene, count);
  const double each = std::max(1e-3, double{replay(graph, scene, count)});
  const int replays =
      std::clamp(static_cast<int>(milliseconds_ / each), kLeastReplays, kMostReplays);
  std::vector<double> times;
  for (int i = 0; i < replays; ++i) {
    times.push_back(1000.0 * double{replay(graph, scene, count)} / count);
  }
  std::sort(times.begin(), times.end());
  const size_t tenth = times.size() / 10;
  return {times[times.size() / 2], times[tenth], times[times.size() - 1 - tenth], graph != nullptr};
}

double Stopwatch::copy_rate(int64_t bytes) {
  simt::DeviceBuffer<uint8_t> from(static_cast<size_t>(bytes), "copied from");
  const simt::DeviceBuffer<uint8_t> to(static_cast<size_t>(bytes), "copied to");
  Pattern::of(DType::kF32).fill(from);
  Scene scene;
  scene.launch = [&](int, cuda::Stream stream) {
    return static_cast<int>(cudaMemcpyAsync(to.data(), from.data(), static_cast<size_t>(bytes),
                                            cudaMemcpyDeviceToDevice,
                                            static_cast<cudaStream_t>(stream)));
  };
  // A recorded copy may be given to another engine than one by itself: the faster one counts.
  double best = measure(scene).median;
  scene.recorded = false;
  best = std::min(best, measure(scene).median);
  return 2.0 * static_cast<double>(bytes) / (best * 1e-6);
}

double Stopwatch::gemm_rate(int n) {
  const int64_t size = int64_t{n} * n;
  simt::DeviceBuffer<uint16_t> a(static_cast<size_t>(size), "a");
  simt::DeviceBuffer<uint16_t> b(static_cast<size_t>(size), "b");
  const simt::DeviceBuffer<uint16_t> c(static_cast<size_t>(size), "c");
  Pattern::of(DType::kBF16).fill(a);
  Pattern::of(DType::kBF16).fill(b);
  const float one = 1;
  const float zero = 0;
  Scene scene;
  scene.launch = [&](int, cuda::Stream stream) {
    multiply_on(stream);
    const cublasStatus_t status = cublasGemmEx(
        cublas_, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a.data(), CUDA_R_16BF, n, b.data(),
        CUDA_R_16BF, n, &zero, c.data(), CUDA_R_16BF, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return status == CUBLAS_STATUS_SUCCESS ? 0 : static_cast<int>(cudaErrorUnknown);
  };
  return 2.0 * static_cast<double>(size) * n / (measure(scene).median * 1e-6);
}

Dense Stopwatch::dense() const {
  return [this](const cuda::GemmArgs& args, cuda::Stream stream) {
    multiply_on(stream);
    const float one = 1;
    const float beta = args.accumulate ? 1.0F : 0.0F;
    const cudaDataType_t type = args.type == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
    const cublasStatus_t status =
        cublasGemmEx(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(args.rows), args.n,
                     static_cast<int>(args.cols), &one, args.w, type, static_cast<int>(args.cols),
                     args.x, type, static_cast<int>(args.x_stride), &beta, args.y, CUDA_R_32F,
                     static_cast<int>(args.y_stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    return status == CUBLAS_STATUS_SUCCESS ? 0 : static_cast<int>(cudaErrorUnknown);
  };
}

}  // namespace paddock::bench
