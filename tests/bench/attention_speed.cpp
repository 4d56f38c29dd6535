// Speed of the CPU's attention kernels on one thread, over keys and values of float16 in blocks of
// 16 that lie in any order: bytes read and multiply-adds per second. The pages of all layers are
// more than a core's own caches hold. Usage: attention_speed [positions]
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string_view>
#include <vector>

#include "cpu/kernels.h"
#include "half.h"

namespace {

using namespace paddock;
using Clock = std::chrono::steady_clock;

struct Shape {
  const char* name;
  int32_t heads, kv_heads, head_dim;
};
constexpr Shape kShapes[] = {{"135M", 9, 3, 64}, {"1B", 32, 8, 64}, {"8B", 32, 8, 128}};
constexpr int32_t kBlock = 16;
constexpr int32_t kLayers = 24;

/// Layers of random keys and values, and queries at the end of them.
class Scene {
 public:
  Scene(const Shape& shape, int32_t positions, int32_t n_query) : shape_(shape) {
    const int32_t pages = (positions + kBlock - 1) / kBlock;
    geometry_ = {shape.kv_heads, kBlock, shape.head_dim, DType::kF16};
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> some(4099);
    for (uint16_t& h : some) h = f32_to_f16(normal(random));
    pools_.resize(kLayers);
    for (std::vector<uint16_t>& pool : pools_) {
      pool.resize(static_cast<size_t>(pages * geometry_.page_bytes() / 2));
      for (size_t i = 0; i < pool.size(); ++i) pool[i] = some[i % some.size()];
    }
    q_.resize(static_cast<size_t>(n_query) * shape.heads * shape.head_dim);
    for (float& x : q_) x = normal(random);
    out_.resize(q_.size());
    angles_.assign(static_cast<size_t>(shape.head_dim), 0.5F);  // any angle turns as fast
    angle_rows_.assign(static_cast<size_t>(n_query), 0);
    std::vector<int32_t> order(static_cast<size_t>(pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (int32_t i = 0; i < pages; ++i) {
      const int32_t slots = std::min(kBlock, positions - i * kBlock);
      entries_.push_back({order[i], i * kBlock, 0, static_cast<uint16_t>(slots), 0});
    }
    sequence_.n_tokens = n_query;
    sequence_.first_position = positions - n_query;
    sequence_.n_entries = pages;
    sequence_.n_rotations = 1;
    sequence_.entries = entries_.data();
    sequence_.angle_rows = angle_rows_.data();
  }

  /// The best time of one layer, in seconds.
  double best_time(const cpu::Kernels& k) {
    cpu::AttentionArgs args{};
    args.q = q_.data();
    args.out = out_.data();
    args.n_heads = shape_.heads;
    args.scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_dim));
    args.angles = angles_.data();
    args.sequences = &sequence_;
    args.n_sequences = 1;
    std::vector<float> scratch(static_cast<size_t>(
        k.attention_scratch(shape_.head_dim, shape_.heads / shape_.kv_heads, 0)));
    double best = 1e9;
    const auto end = Clock::now() + std::chrono::milliseconds(500);
    for (int i = 0; i < 2 || Clock::now() < end; ++i) {
      for (const std::vector<uint16_t>& pool : pools_) {
        args.kv = {reinterpret_cast<const uint8_t*>(pool.data()), geometry_};
        const auto start = Clock::now();
        k.attention(args, 0, k.attention_tasks(args), scratch.data());
        best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
      }
    }
    return best;
  }

 private:
  Shape shape_;
  PageGeometry geometry_{};
  std::vector<std::vector<uint16_t>> pools_;
  std::vector<float> q_, out_, angles_;
  std::vector<int32_t> angle_rows_;
  std::vector<BlockEntry> entries_;
  cpu::AttentionSequence sequence_{};
};

}  // namespace

int main(int argc, char** argv) {
  int32_t positions = 4096;
  if (argc > 1) {
    const std::string_view asked = argv[1];
    std::from_chars(asked.data(), asked.data() + asked.size(), positions);
  }
  positions = std::clamp(positions, 128, 1 << 20);
  for (const cpu::Isa isa : {cpu::Isa::kPortable, cpu::Isa::kAvx2, cpu::Isa::kAvx512}) {
    if (!cpu::isa_supported(isa)) continue;
    for (const Shape& shape : kShapes) {
      fmt::print("{:<9} {:<5}", cpu::isa_name(isa), shape.name);
      for (const int32_t n : {1, 2, 4, 8, 64}) {
        const double seconds = Scene(shape, positions, n).best_time(cpu::kernels(isa));
        const double elements = 2.0 * positions * shape.head_dim;  // keys and values of a head
        if (n == 1) fmt::print("  1: {:5.1f} GB/s,", 2e-9 * elements * shape.kv_heads / seconds);
        fmt::print("  {}: {:5.1f} GMAC/s", n, 1e-9 * elements * shape.heads * n / seconds);
      }
      fmt::print("\n");
      std::fflush(stdout);
    }
  }
  return 0;
}
