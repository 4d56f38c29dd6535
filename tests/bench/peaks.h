// What one thread can multiply at most with an instruction set: the ceilings that a bench's figures
// stand beside. Each is a loop of twelve independent sums of the instruction that the kernels use.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/linear_pack.h"

namespace paddock::test {

/// `rounds` times the instruction on each of twelve sums.
#define PADDOCK_PEAK_LOOP(op, registers)                                                           \
  __asm__ volatile("vzeroall\n1:\n.irp i,0,1,2,3,4,5,6,7,8,9,10,11\n" op " %%" registers           \
                   "14, %%" registers "15, %%" registers "\\i\n.endr\ndec %0\njnz 1b"              \
                   : "+r"(rounds)                                                                  \
                   :                                                                               \
                   : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                     "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

enum class Multiply { kFloat, kBytes, kBFloat16Pairs, kBFloat16Tiles };

/// Eight tiles of 16 rows of 64 bytes.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// Whether a set has registers of 512 bits, and multiplies bytes in them.
inline bool has_512_bits(cpu::Isa isa) {
  switch (isa) {
    case cpu::Isa::kPortable:
    case cpu::Isa::kAvx2:
      return false;
    case cpu::Isa::kAvx512:
    case cpu::Isa::kAvx512Bf16:
    case cpu::Isa::kAmx:
      return true;
  }
  return false;
}

/// Runs a loop and says how many multiply-adds it did; 0 where there is none.
inline int64_t multiply(cpu::Isa isa, Multiply what, int64_t rounds) {
  const int64_t sums = 12 * rounds;
#if defined(__x86_64__)
  if (isa == cpu::Isa::kAvx2 && what == Multiply::kFloat) {
    PADDOCK_PEAK_LOOP("vfmadd231ps", "ymm");
    return sums * 8;
  }
  if (isa == cpu::Isa::kAvx2 && what == Multiply::kBytes) {  // before they are added up
    PADDOCK_PEAK_LOOP("vpmaddubsw", "ymm");
    return sums * 32;
  }
  if (has_512_bits(isa) && what == Multiply::kFloat) {
    PADDOCK_PEAK_LOOP("vfmadd231ps", "zmm");
    return sums * 16;
  }
  if (has_512_bits(isa) && what == Multiply::kBytes) {
    PADDOCK_PEAK_LOOP("vpdpbusd", "zmm");
    return sums * 64;
  }
  if (isa == cpu::Isa::kAvx512Bf16 && what == Multiply::kBFloat16Pairs) {
    PADDOCK_PEAK_LOOP("vdpbf16ps", "zmm");
    return sums * 32;
  }
  if (isa == cpu::Isa::kAmx && what == Multiply::kBFloat16Tiles) {
    const TileConfig config;
    __asm__ volatile(
        "ldtilecfg %1\ntilezero %%tmm4\ntilezero %%tmm5\n1:\n.irp i,0,1,2,3,0,1,2,3,0,1,2,3\n"
        "tdpbf16ps %%tmm5, %%tmm4, %%tmm\\i\n.endr\ndec %0\njnz 1b\ntilerelease"
        : "+r"(rounds)
        : "m"(config)
        : "cc");
    return sums * 16 * 16 * 32;
  }
#endif
  return 0 * sums;
}
#undef PADDOCK_PEAK_LOOP

/// Operations (two per multiply-add) a second for weights of a packed format, the best of many
/// short runs; 0 where nobody knows.
inline double peak(cpu::Isa isa, int32_t format) {
  const Multiply what = format == cpu::kBFloat16Pairs   ? Multiply::kBFloat16Pairs
                        : format == cpu::kBFloat16Tiles ? Multiply::kBFloat16Tiles
                        : cpu::is_float_format(format)  ? Multiply::kFloat
                                                        : Multiply::kBytes;
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < 200; ++i) {
    const auto start = Clock::now();
    const auto done = static_cast<double>(multiply(isa, what, 20000));
    best = std::max(best, 2 * done / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace paddock::test
