// The CPU kernels, one table of functions per instruction set, chosen once at run time.
//
// Every kernel works on a part of its output given by the caller (rows, tokens, tasks), so that a
// thread pool can split it; none allocates, none starts threads.
// Numeric contract: an output element is summed in one fixed order that does not depend on the
// other rows, tokens or tasks of the call. The `reference` kernels use float32 without contraction
// and give the same bits for every instruction set.
#pragma once

#include <cstdint>

#include "block_use.h"
#include "dtype.h"
#include "paged_kv.h"

namespace paddock::cpu {

enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };  // kAvx512: F, BW, VL, DQ, VNNI
inline constexpr Isa kIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16,
                                Isa::kAmx};
const char* isa_name(Isa isa);
bool isa_supported(Isa isa);  // by this machine and this build
Isa best_isa();

// ---- element types

/// Expands a row of n values of any DType to float32, exactly as the reference decoder of ggml
/// does. Portable, no alignment needed.
void dequantize_row(DType type, const void* row, int64_t n, float* out);

// ---- linear layers

/// Rows of a group of packed weights: one for each lane.
inline constexpr int64_t kGroupRows = 16;

/// A weight matrix W [rows, cols] packed for one instruction set: groups of 16 rows interleaved so
/// that SIMD lanes are output rows. Made by pack_linear, immutable.
struct PackedLinear {
  DType type;      // of the original
  int32_t format;  // how it was packed; meaning private to the kernels
  int64_t rows;    // any number; the last group is padded with zero rows
  int64_t cols;
  const uint8_t* data;  // 64-byte aligned, packed_linear_bytes() long
};

/// Activations of n tokens prepared for packed products: 8-bit quantized per 32 values with scale
/// and sum for quantized weights, bfloat16 or float32 rows for float weights. Layout private.
struct PackedInput {
  uint8_t* data;  // 64-byte aligned, input_bytes() long
  int32_t format;
  int64_t n_tokens;
  int64_t cols;
};

/// One sequence of an attention call, by addresses: tables lie where the host keeps them.
struct AttentionSequence : SequenceQueries {
  const BlockEntry* entries;  // [n_entries] in position order
  /// Row of the angle table for query token i under rotation r: angle_rows[r * n_tokens + i].
  const int32_t* angle_rows;
  /// [n_tokens, n_entries], zeroed: attention that each query gives to each entry, summed over
  /// heads in units of 2^-32. Null: not measured.
  int64_t* mass;
};

/// Attention over paged keys and values of one layer for a batch of sequences.
struct AttentionArgs {
  const float* q;  // [n_tokens, n_heads, head_dim], not rotated
  float* out;      // [n_tokens, n_heads, head_dim]
  int32_t n_heads;
  float scale;          // usually 1/sqrt(head_dim)
  const float* angles;  // [n_rows][2][head_dim/2]: cos, then sin
  bool interleaved;     // rotary pairs (2i, 2i+1); else (i, i + head_dim/2)
  KvView<KeyOrder::kByDim> kv;
  const AttentionSequence* sequences;
  int32_t n_sequences;
  int32_t max_parts;  // room in scratch for measuring masses; see attention_scratch
};

struct RopeStoreArgs {
  const float* k;  // [n_tokens, n_kv_heads, head_dim] with token stride k_stride, not rotated
  const float* v;  // likewise
  int64_t k_stride, v_stride;  // floats between tokens
  const float* angles;         // as in AttentionArgs
  const int32_t* angle_rows;   // [n_tokens] row of each token's own position
  bool interleaved;
  KvView<KeyOrder::kByDim, uint8_t> kv;
  const KvDestination* destinations;  // [n_tokens]
  /// [n_tokens] sum over KV heads of ||key||_2, in kNormUnits; null: not measured.
  int64_t* key_norms;
  /// Grows by the number of keys and values that become infinite where they are stored (see
  /// overflows() in paged_kv.h), from any thread; null: not counted.
  int64_t* overflows;
};

/// One instruction set's kernels.
struct Kernels {
  Isa isa;

  // Packed ("fast") linear layers.
  int32_t (*packed_format)(DType type);  // format used for W of this type
  int64_t (*packed_linear_bytes)(int32_t format, int64_t rows, int64_t cols);
  /// Packs row groups [group_begin, group_end) (16 rows each) of W, whose rows lie row_bytes(type,
  /// cols) apart from `weights` on.
  void (*pack_linear)(DType type, const void* weights, const PackedLinear& packed, uint8_t* data,
                      int64_t group_begin, int64_t group_end);
  int64_t (*input_bytes)(int32_t format, int64_t n_tokens, int64_t cols);
  /// Prepares tokens [token_begin, token_end) of x [n_tokens, cols] (token stride x_stride floats).
  void (*pack_input)(const float* x, int64_t x_stride, const PackedInput& input,
                     int64_t token_begin, int64_t token_end);
  /// y[t * y_stride + r] (=, or += when accumulate) sum_k W[r][k] x[t][k], for all tokens of
  /// `input` and the rows of groups [group_begin, group_end).
  void (*linear)(const PackedLinear& weights, const PackedInput& input, float* y, int64_t y_stride,
                 bool accumulate, int64_t group_begin, int64_t group_end);

  // Reference linear layer: float32 on the original bytes, same bits for every Isa.
  /// Rows [row_begin, row_end); `scratch` holds at least cols floats, 64-byte aligned.
  void (*linear_reference)(DType type, const void* weights, int64_t cols, const float* x,
                           int64_t x_stride, int64_t n_tokens, float* y, int64_t y_stride,
                           bool accumulate, int64_t row_begin, int64_t row_end, float* scratch);

  /// y = x / sqrt(mean(x^2) + eps) * w for n_tokens rows of n; x and y may be the same.
  void (*rms_norm)(const float* x, const float* w, float eps, int64_t n, int64_t n_tokens,
                   float* y);
  /// out[t][i] = silu(gate_up[t][i]) * gate_up[t][n + i]; rows of gate_up have 2n floats.
  void (*swiglu)(const float* gate_up, int64_t n, int64_t n_tokens, float* out);
  void (*swiglu_reference)(const float* gate_up, int64_t n, int64_t n_tokens, float* out);
  /// Rotates k at its own position and writes k and v into pages, tokens [begin, end).
  void (*rope_store)(const RopeStoreArgs& args, int64_t begin, int64_t end);

  /// Number of independent attention tasks of a batch.
  int64_t (*attention_tasks)(const AttentionArgs& args);
  /// Floats of scratch one worker needs. max_parts: 0 if masses are never measured, else what
  /// attention_parts() gives for the longest table.
  int64_t (*attention_scratch)(int64_t head_dim, int64_t heads_per_kv, int64_t max_parts);
  /// Runs tasks [begin, end) with float32 arithmetic.
  void (*attention)(const AttentionArgs& args, int64_t begin, int64_t end, float* scratch);
  void (*attention_reference)(const AttentionArgs& args, int64_t begin, int64_t end,
                              float* scratch);
};

/// Parts into which attention tiles can cut a table of n_entries; scratch is sized by it.
int64_t attention_parts(int64_t n_entries, int64_t block_size);
/// Sums a sequence's masses over its queries: `uses` [n_entries] gets each entry's mass and the
/// newest query that gave it at least its fair share.
void add_up_uses(const AttentionSequence& sequence, int32_t n_heads, BlockUse* uses);

/// The kernels of `isa`, or the portable ones where it is not supported.
const Kernels& kernels(Isa isa);

}  // namespace paddock::cpu
