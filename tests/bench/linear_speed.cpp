// Speed of the packed linear kernels on one thread: bytes of weights per second for one token,
// operations (two per multiply-add) per second for 512, also in percent of what the instruction set
// can multiply, which is measured before. Usage: linear_speed [isa [type [shape]]]
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bench/peaks.h"
#include "cpu/kernels.h"
#include "support/random_blocks.h"

namespace {

using namespace paddock;
using Clock = std::chrono::steady_clock;

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<uint8_t[], Free>;

/// Of huge pages where the system offers them, as an engine's.
Buffer make_buffer(int64_t bytes) {
  constexpr size_t kHugePage = 2 << 20;
  const size_t size = (static_cast<size_t>(bytes) + kHugePage - 1) / kHugePage * kHugePage;
  Buffer buffer(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, size)));
  madvise(buffer.get(), size, MADV_HUGEPAGE);
  std::memset(buffer.get(), 0, size);
  return buffer;
}

struct Shape {
  const char* name;
  int64_t rows, cols;
};
// Layers of models with 135 million and with a billion parameters.
constexpr Shape kShapes[] = {{"135M out", 576, 576},    {"135M qkv", 960, 576},
                             {"135M gate", 1536, 576},  {"135M down", 576, 1536},
                             {"135M head", 49152, 576}, {"1B gate+up", 16384, 2048},
                             {"1B down", 2048, 8192}};

/// The best time of many calls, in seconds.
double best_time(const cpu::Kernels& k, const cpu::PackedLinear& w, int64_t n_tokens) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  const auto make_floats = [](int64_t n) { return make_buffer(n * int64_t{sizeof(float)}); };
  const Buffer inputs = make_floats(n_tokens * w.cols), outputs = make_floats(n_tokens * w.rows);
  auto* x = reinterpret_cast<float*>(inputs.get());
  auto* y = reinterpret_cast<float*>(outputs.get());
  for (int64_t i = 0; i < n_tokens * w.cols; ++i) x[i] = normal(rng);
  const Buffer storage = make_buffer(k.input_bytes(w.format, n_tokens, w.cols));
  const cpu::PackedInput input{storage.get(), w.format, n_tokens, w.cols};
  double best = 1e9;
  const auto end = Clock::now() + std::chrono::milliseconds(400);
  for (int i = 0; i < 3 || Clock::now() < end; ++i) {
    const auto start = Clock::now();
    k.pack_input(x, w.cols, input, 0, n_tokens);
    k.linear(w, input, y, w.rows, false, 0, (w.rows + 15) / 16);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

void bench(const cpu::Kernels& k, DType type, const char* only) {
  for (const Shape& shape : kShapes) {
    if (only != nullptr && std::strcmp(only, shape.name) != 0) continue;
    if (shape.cols % dtype_traits(type).block_values != 0) continue;
    std::mt19937 rng(1);
    const std::vector<uint8_t> bytes = test::random_row(type, shape.rows * shape.cols, rng);
    const int32_t format = k.packed_format(type);
    const int64_t size = k.packed_linear_bytes(format, shape.rows, shape.cols);
    const Buffer storage = make_buffer(size);
    const cpu::PackedLinear w{type, format, shape.rows, shape.cols, storage.get()};
    k.pack_linear(type, bytes.data(), w, storage.get(), 0, (shape.rows + 15) / 16);
    const double work = 2e-12 * static_cast<double>(shape.rows * shape.cols);
    std::printf("%-8s %-5s %-10s %8.2f MB", cpu::isa_name(k.isa), dtype_traits(type).name,
                shape.name, static_cast<double>(size) * 1e-6);
    for (const int64_t n : {1, 2, 3, 4, 6, 8}) {
      const double t = best_time(k, w, n);
      std::printf("  %lld: %5.1f GB/s", static_cast<long long>(n),
                  static_cast<double>(size) * 1e-9 / t);
    }
    for (const int64_t n : {12, 16, 32}) {
      std::printf("  %lld: %6.3f TOP/s", static_cast<long long>(n),
                  static_cast<double>(n) * work / best_time(k, w, n));
    }
    const double most = test::peak(k.isa, format) * 1e-12;
    const double speed = 512 * work / best_time(k, w, 512);
    std::printf("  512: %6.3f TOP/s", speed);
    if (most > 0) std::printf(", %2.0f %% of %.3f", 100 * speed / most, most);
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (const cpu::Isa isa : cpu::kIsas) {
    const bool wanted =
        argc > 1 ? std::strcmp(argv[1], cpu::isa_name(isa)) == 0 : isa == cpu::best_isa();
    if (!wanted || !cpu::isa_supported(isa)) continue;
    for (const DType type : kDTypes) {
      if (argc > 2 && std::strcmp(argv[2], dtype_traits(type).name) != 0) continue;
      bench(cpu::kernels(isa), type, argc > 3 ? argv[3] : nullptr);
    }
  }
  return 0;
}
