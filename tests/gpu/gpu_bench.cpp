// gpu_bench: how fast each kernel is on a device, beside what the device can do at most.
//
//   gpu_bench [--only TEXT] [--quick] [--csv FILE]
//
// A row is a kernel and a shape: microseconds of one launch (median; in brackets the spread between
// the tenth parts at both ends), the rate of the bytes or operations that the kernel's opening
// comment counts, and that rate as a part of the ceiling measured by the same run: a copy on the
// device, or cuBLAS's bfloat16 product. Launches are replayed from a graph over input sets that
// exceed the L2 cache together. The last number is the error of a sample of the output against
// float64. --only: rows whose kernel and shape contain TEXT. Exit code: 0, 1 where a row failed, 77
// without a device.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <thread>

#include "gpu/stopwatch.h"

namespace paddock::bench {
namespace {

struct Options {
  std::string only, csv;
  bool quick = false;
};

std::optional<Options> parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--quick") {
      options.quick = true;
    } else if ((arg == "--only" || arg == "--csv") && i + 1 < argc) {
      (arg == "--only" ? options.only : options.csv) = argv[++i];
    } else {
      fmt::print(stderr, "usage: gpu_bench [--only TEXT] [--quick] [--csv FILE]\n");
      return std::nullopt;
    }
  }
  return options;
}

/// What survives the process that measures, which a fault of the device ends.
struct Progress {
  std::atomic<int> next = -1;  // the case at hand; -1: the ceilings
  std::atomic<int> failures = 0;
  std::atomic<double> copy_rate = 0, gemm_rate = 0;
};
static_assert(std::atomic<double>::is_always_lock_free);  // or processes could not share it

constexpr int kDone = 0, kNoDevice = 77, kLost = 78;  // exit codes of that process
constexpr int kMostRestarts = 10;
constexpr auto kPatience = std::chrono::seconds(60);  // for one case

class Output {
 public:
  explicit Output(const std::string& csv) {
    if (!csv.empty()) csv_ = std::fopen(csv.c_str(), "w");
    if (csv_ != nullptr) {
      fmt::print(csv_, "kernel,shape,us,us_low,us_high,rate,unit,percent,error,headline,status\n");
    }
  }

  void row(const Case& c, const Scene& scene, const Times& t, double ceiling, double error,
           const std::string& status) const {
    const double rate = scene.work.amount / (t.median * 1e-6);
    const double shown = rate / (scene.work.flops ? 1e12 : 1e9);
    const char* unit = scene.work.flops ? "TFLOP/s" : "GB/s";
    const double percent = ceiling > 0 ? 100 * rate / ceiling : 0;
    fmt::print("{:<17} {:<38} {:>9.2f} us [{:>4.1f}%] {:>7.1f} {:<7} {:>5.1f}%  {:.0e} {}\n",
               c.kernel, c.shape, t.median, 100 * (t.high - t.low) / t.median, shown, unit, percent,
               error, status);
    csv(c,
        fmt::format("{:.3f},{:.3f},{:.3f},{:.2f},{},{:.1f},{:.2e}", t.median, t.low, t.high, shown,
                    unit, percent, error),
        status.empty() ? "ok" : status);
  }
  void failure(const Case& c, const std::string& why) const {
    fmt::print("{:<17} {:<38} FAILED: {}\n", c.kernel, c.shape, why);
    csv(c, ",,,,,,", "FAILED: " + why);
  }
  void ceiling(const char* what, const char* shape, double rate, const char* unit) const {
    fmt::print("{:<17} {:<38} {:>37.1f} {}\n", what, shape, rate, unit);
    csv({what, shape, true, {}}, fmt::format(",,,{:.1f},{},100,", rate, unit), "ok");
  }

 private:
  void csv(const Case& c, const std::string& numbers, const std::string& status) const {
    std::fflush(stdout);
    if (csv_ == nullptr) return;
    fmt::print(csv_, "{},{},{},{},{}\n", c.kernel, c.shape, numbers, c.headline ? 1 : 0, status);
    std::fflush(csv_);
  }

  std::FILE* csv_ = nullptr;
};

/// The process that uses the device: all cases from progress.next on.
class Measurer {
 public:
  Measurer(const Options& options, const Output& output, Progress& progress)
      : options_(options), output_(output), progress_(progress) {}

  int run() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return kNoDevice;
    cudaDeviceProp device{};
    if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) return kNoDevice;
    turns_.cold_bytes = int64_t{3} * device.l2CacheSize;
    try {
      Stopwatch clock(options_.quick ? 10 : 40);
      if (progress_.next < 0) {
        fmt::print("{}, {} multiprocessors, {} MiB of L2 cache, {} MiB of memory\n", device.name,
                   device.multiProcessorCount, device.l2CacheSize >> 20,
                   device.totalGlobalMem >> 20);
        measure_ceilings(clock);
        progress_.next = 0;
      }
      const std::vector<Case> cases = all_cases(clock.dense());
      for (; progress_.next < static_cast<int>(cases.size()); ++progress_.next) {
        const Case& c = cases[static_cast<size_t>(progress_.next)];
        if ((c.kernel + " " + c.shape).find(options_.only) == std::string::npos) continue;
        measure(clock, c);
      }
    } catch (const DeviceLost& e) {
      return lost(e.what());
    } catch (const std::exception& e) {
      return lost(e.what());
    }
    return kDone;
  }

 private:
  int lost(const char* why) {
    fmt::print("FAILED: {}\n", why);
    std::fflush(stdout);
    return kLost;
  }

  void measure_ceilings(Stopwatch& clock) {
    progress_.copy_rate = clock.copy_rate(int64_t{1} << 30);
    output_.ceiling("copy", "1 GiB read and written", progress_.copy_rate / 1e9, "GB/s");
    progress_.gemm_rate = clock.gemm_rate(8192);
    output_.ceiling("gemm", "8192^3 BF16 cuBLAS", progress_.gemm_rate / 1e12, "TFLOP/s");
  }

  void measure(Stopwatch& clock, const Case& c) {
    try {
      const Scene scene = c.make(turns_);
      const Times times = clock.measure(scene);
      const double error = scene.error();
      wait_for_device("the check");
      std::string status = times.graph ? "" : "(no graph)";
      if (!(error <= scene.room)) {
        status = fmt::format("FAILED: the error is above {:.0e}", scene.room);
        ++progress_.failures;
      }
      output_.row(c, scene, times, scene.work.flops ? progress_.gemm_rate : progress_.copy_rate,
                  error, status);
    } catch (const DeviceLost& e) {
      output_.failure(c, e.what());
      throw;
    } catch (const std::exception& e) {  // a refused launch, or no memory: the rest can go on
      output_.failure(c, e.what());
      ++progress_.failures;
      wait_for_device("after a failure");
    }
  }

  const Options& options_;
  const Output& output_;
  Progress& progress_;
  Turns turns_;
};

/// Waits for the measuring process, but not for ever; its exit code, or -1 where it was killed or
/// died.
int wait_for(pid_t child, const Progress& progress) {
  int seen = progress.next;
  auto since = std::chrono::steady_clock::now();
  for (;;) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    const auto now = std::chrono::steady_clock::now();
    if (progress.next != seen) {
      seen = progress.next;
      since = now;
    }
    if (now - since > kPatience) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

int run(const Options& options) {
  void* shared =
      mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  auto& progress = *new (shared) Progress;
  const Output output(options.csv);
  const std::vector<Case> cases =
      all_cases([](const auto&, auto) { return 0; });  // for their names
  int restarts = 0;
  for (;;) {
    std::fflush(nullptr);
    const pid_t child = fork();  // before this process has met the device
    if (child < 0) return 1;
    if (child == 0) {
      const int code = Measurer(options, output, progress).run();
      std::fflush(nullptr);
      _exit(code);
    }
    const int code = wait_for(child, progress);
    if (code == kDone) break;
    if (code == kNoDevice) {
      fmt::print("SKIPPED: no CUDA device\n");
      return kNoDevice;
    }
    // A new process has a device without faults. The case that ended this one is not tried again.
    ++progress.failures;
    if (code != kLost) {
      const Case ceilings{"ceilings", "copy and gemm", true, {}};
      output.failure(progress.next < 0 ? ceilings : cases.at(static_cast<size_t>(progress.next)),
                     "the process died or did not end");
    }
    ++progress.next;
    if (++restarts == kMostRestarts) break;
  }
  if (progress.failures > 0) fmt::print("{} rows FAILED\n", int{progress.failures});
  return progress.failures > 0 ? 1 : 0;
}

}  // namespace
}  // namespace paddock::bench

int main(int argc, char** argv) {
  const auto options = paddock::bench::parse(argc, argv);
  return options ? paddock::bench::run(*options) : 2;
}
