// Times of launches on a device, by its own clock, and the ceilings to hold them against.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "gpu/scene.h"

namespace paddock::bench {

/// An error after which the process can ask nothing more of its device.
struct DeviceLost : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Microseconds of one launch: the median of the repetitions, and the tenth parts from both ends.
struct Times {
  double median = 0, low = 0, high = 0;
  bool graph = true;  // false: launched one by one, so that short kernels show the host's pace
};

class Stopwatch {
 public:
  /// `milliseconds`: about how long one row's repetitions take together.
  explicit Stopwatch(double milliseconds);
  ~Stopwatch();
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  /// Launches over all sets in turn, in replays of one graph. Throws std::runtime_error where a
  /// launch fails, DeviceLost where the device does.
  Times measure(const Scene& scene);
  double copy_rate(int64_t bytes);  // bytes read and written, per second
  double gemm_rate(int n);          // operations per second of n x n x n bfloat16 products

  Dense dense() const;  // the product that the CUDA backend makes, see cuda_runtime.cpp

 private:
  void multiply_on(cuda::Stream stream) const;
  int launch_all(const Scene& scene, int count) const;
  float replay(cudaGraphExec_t graph, const Scene& scene, int count) const;

  double milliseconds_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  cublasHandle_t cublas_ = nullptr;
  void* workspace_ = nullptr;
};

/// Throws DeviceLost if anything asked for so far has failed on the device.
void wait_for_device(const char* what);

}  // namespace paddock::bench
