// Which instruction sets this build and this machine have, and the table of kernels for each.
#include "cpu/isa.h"

#include "cpu/linear_pack.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace paddock::cpu {
namespace {

Kernels table(Isa isa, decltype(Kernels::pack_input) pack_input, decltype(Kernels::linear) linear,
              decltype(Kernels::swiglu) swiglu, decltype(Kernels::attention) attention) {
  Kernels k{};
  k.isa = isa;
  k.packed_format = packed_format;
  k.packed_linear_bytes = packed_linear_bytes;
  k.pack_linear = pack_linear;
  k.input_bytes = input_bytes;
  k.pack_input = pack_input;
  k.linear = linear;
  k.linear_reference = reference::linear;
  k.rms_norm = reference::rms_norm;
  k.swiglu = swiglu;
  k.swiglu_reference = reference::swiglu;
  k.rope_store = rope_store;
  k.attention_tasks = attention_tasks;
  k.attention_scratch = attention_scratch;
  k.attention = attention;
  k.attention_reference = reference::attention;
  return k;
}

#if defined(__x86_64__)
/// Tiles and their products of bfloat16; not every compiler knows their names.
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kBf16 = 1U << 22, kTile = 1U << 24;
  return (d & kBf16) != 0 && (d & kTile) != 0;
}
#endif

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

bool isa_supported(Isa isa) {
  if (isa == Isa::kPortable) return true;
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::kAvx2) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  if (isa == Isa::kAvx512) return avx512;
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (isa == Isa::kAvx512Bf16) return bf16;
  return bf16 && has_amx() && amx::is_permitted();
#else
  return false;
#endif
}

Isa best_isa() {
  Isa best = Isa::kPortable;
  for (const Isa isa : kIsas) {
    if (isa_supported(isa)) best = isa;
  }
  return best;
}

const Kernels& kernels([[maybe_unused]] Isa isa) {
  static const Kernels portable = table(Isa::kPortable, portable::pack_input, portable::linear,
                                        portable::swiglu, portable::attention);
#if defined(__x86_64__)
  static const Kernels avx2 =
      table(Isa::kAvx2, avx2::pack_input, avx2::linear, avx2::swiglu, avx2::attention);
  static const Kernels avx512 =
      table(Isa::kAvx512, avx512::pack_input, avx512::linear, avx512::swiglu, avx512::attention);
  static const Kernels avx512_bf16 = [] {
    Kernels k = table(Isa::kAvx512Bf16, avx512::pack_input, avx512_bf16::linear, avx512::swiglu,
                      avx512::attention);
    k.packed_format = [](DType type) {
      return type == DType::kBF16 ? int32_t{kBFloat16Pairs} : packed_format(type);
    };
    return k;
  }();
  static const Kernels amx = [] {
    Kernels k =
        table(Isa::kAmx, avx512::pack_input, amx::linear, avx512::swiglu, avx512::attention);
    k.packed_format = [](DType type) {
      return type == DType::kBF16 ? int32_t{kBFloat16Tiles} : packed_format(type);
    };
    return k;
  }();
  if (isa == Isa::kAmx && isa_supported(isa)) return amx;
  if (isa == Isa::kAvx512Bf16 && isa_supported(isa)) return avx512_bf16;
  if (isa == Isa::kAvx512 && isa_supported(isa)) return avx512;
  if (isa == Isa::kAvx2 && isa_supported(isa)) return avx2;
#endif
  return portable;
}

}  // namespace paddock::cpu
