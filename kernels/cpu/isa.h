// What each instruction set's sources provide; isa.cpp puts the tables together.
#pragma once

#include "cpu/kernels.h"

namespace paddock::cpu {

#define PADDOCK_DECLARE_CPU_KERNELS                                                                \
  void linear(const PackedLinear& weights, const PackedInput& input, float* y, int64_t y_stride,   \
              bool accumulate, int64_t group_begin, int64_t group_end);                            \
  void pack_input(const float* x, int64_t x_stride, const PackedInput& input, int64_t token_begin, \
                  int64_t token_end);                                                              \
  void swiglu(const float* gate_up, int64_t n, int64_t n_tokens, float* out);                      \
  void attention(const AttentionArgs& args, int64_t begin, int64_t end, float* scratch);

namespace portable {
PADDOCK_DECLARE_CPU_KERNELS
}
namespace avx2 {
PADDOCK_DECLARE_CPU_KERNELS
}
namespace avx512 {
PADDOCK_DECLARE_CPU_KERNELS
}
#undef PADDOCK_DECLARE_CPU_KERNELS
namespace avx512_bf16 {  // all but this is as in avx512
void linear(const PackedLinear& weights, const PackedInput& input, float* y, int64_t y_stride,
            bool accumulate, int64_t group_begin, int64_t group_end);
}

namespace amx {  // likewise
bool is_permitted();
void linear(const PackedLinear& weights, const PackedInput& input, float* y, int64_t y_stride,
            bool accumulate, int64_t group_begin, int64_t group_end);
}  // namespace amx

namespace reference {
void linear(DType type, const void* weights, int64_t cols, const float* x, int64_t x_stride,
            int64_t n_tokens, float* y, int64_t y_stride, bool accumulate, int64_t row_begin,
            int64_t row_end, float* scratch);
void rms_norm(const float* x, const float* w, float eps, int64_t n, int64_t n_tokens, float* y);
void swiglu(const float* gate_up, int64_t n, int64_t n_tokens, float* out);
void attention(const AttentionArgs& args, int64_t begin, int64_t end, float* scratch);
}  // namespace reference

int64_t attention_tasks(const AttentionArgs& args);
int64_t attention_scratch(int64_t head_dim, int64_t heads_per_kv, int64_t max_parts);
void rope_store(const RopeStoreArgs& args, int64_t begin, int64_t end);

}  // namespace paddock::cpu
