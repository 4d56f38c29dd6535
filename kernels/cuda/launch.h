// Every CUDA kernel's launcher: plain functions on plain structs, asynchronous on `stream` (the
// last argument), returning 0 or a cudaError_t; kInvalid where a precondition of the comment is
// broken. Pointers are device memory unless said otherwise. Needs no CUDA header: src/backend/cuda
// and the kernels' tests include it.
#pragma once

#include <cstdint>

#include "block_use.h"
#include "dtype.h"
#include "paged_kv.h"
#include "sampling.h"

namespace paddock::cuda {

using Stream = void*;               // a cudaStream_t
inline constexpr int kInvalid = 1;  // cudaErrorInvalidValue
/// Shared memory that a block must be able to ask for.
inline constexpr uint64_t kSharedMemoryNeeded = 163 * 1024;

// ---- small operations (small_ops.cu)

/// out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight; x and out may be the same.
struct RmsNormArgs {
  const float* x;  // [n_tokens, cols]
  int64_t x_stride;
  const float* weight;  // [cols]
  float eps;
  int64_t cols;
  float* out;  // [n_tokens, cols]
  int64_t out_stride;
  int32_t n_tokens;
};
int rms_norm(const RmsNormArgs& args, Stream stream);

/// Rotary angles in double: row r gets cos, then sin, of positions[r] * inverse_frequencies[i],
/// times attention_factor.
struct AnglesArgs {
  const int32_t* positions;           // [n_rows]
  const double* inverse_frequencies;  // [half]
  float attention_factor;
  float* angles;  // [n_rows][2][half]
  int32_t n_rows;
  int32_t half;
};
int angles(const AnglesArgs& args, Stream stream);

/// Rotates k at each token's own position and writes k and v into pages.
/// Tokens whose destination is a page below 0 are left out.
struct RopeStoreArgs {
  const float* k;  // [n_tokens, n_kv_heads, head_dim] with token stride k_stride, not rotated
  const float* v;  // likewise
  int64_t k_stride, v_stride;
  const float* angles;  // row t belongs to token t
  bool interleaved;     // rotary pairs (2i, 2i+1); else (i, i + head_dim/2)
  KvView<KeyOrder::kBySlot, uint8_t> kv;
  const KvDestination* destinations;  // [n_tokens]
  /// [n_tokens] sum over KV heads of ||key||_2, in kNormUnits; null: not measured.
  int64_t* key_norms;
  /// Grows by the number of keys and values that become infinite where they are stored (see
  /// overflows() in paged_kv.h); null: not counted.
  uint64_t* overflows;
  int32_t n_tokens;
};
int rope_store(const RopeStoreArgs& args, Stream stream);

/// out[t][i] = silu(gate_up[t][i]) * gate_up[t][cols + i]
struct SwigluArgs {
  const float* gate_up;  // [n_tokens, 2 * cols] with row stride gate_up_stride
  int64_t gate_up_stride;
  int64_t cols;
  float* out;  // [n_tokens, cols]
  int64_t out_stride;
  int32_t n_tokens;
};
int swiglu(const SwigluArgs& args, Stream stream);

/// out[i] = x[rows[i]]
struct GatherArgs {
  const float* x;
  int64_t x_stride;
  const int32_t* rows;  // [n_rows]
  int64_t cols;
  float* out;
  int64_t out_stride;
  int32_t n_rows;
};
int gather(const GatherArgs& args, Stream stream);

/// Float32 rows to bfloat16, nearest even, row after row without gaps: the input of dense products.
struct ToBf16Args {
  const float* x;
  int64_t x_stride;
  int64_t cols;
  uint16_t* out;  // [n_rows, cols]
  int32_t n_rows;
};
int to_bf16(const ToBf16Args& args, Stream stream);

/// One entry of a block table that is not what the device holds.
struct TableChange {
  BlockEntry entry;
  int64_t index;  // in ChangeTablesArgs::tables
  int64_t reserved;
};
static_assert(sizeof(TableChange) == 32);

/// tables[changes[i].index] = changes[i].entry; no index occurs twice.
struct ChangeTablesArgs {
  const TableChange* changes;  // [n], aligned to 16 bytes
  BlockEntry* tables;
  int64_t n;
};
int change_tables(const ChangeTablesArgs& args, Stream stream);

// ---- weights (embed.cu, dequantize.cu, gemv.cu, tensor_gemv.cu)

/// out[t] = row tokens[t] of a table of any DType, expanded to float32: ids must be rows of
/// it. Aligned as in DequantizeArgs.
struct EmbedArgs {
  const int32_t* tokens;  // [n_tokens]
  const uint8_t* table;   // [rows] of row_bytes(type, cols)
  DType type;
  int64_t cols;
  float* out;  // [n_tokens, cols] with row stride out_stride floats
  int64_t out_stride;
  int32_t n_tokens;
};
int embed(const EmbedArgs& args, Stream stream);

/// Expands a matrix of any DType, as cpu::dequantize_row does.
struct DequantizeArgs {
  const uint8_t* weights;  // [rows] of row_bytes(type, cols), aligned to 2 bytes (F32: 4)
  DType type;
  int64_t rows, cols;
  void* out;       // [rows, cols]
  DType out_type;  // kF32 (exact) or kBF16 (nearest even)
};
int dequantize(const DequantizeArgs& args, Stream stream);

inline constexpr int32_t kMaxGemvTokens = 8;
/// Of one device: launchers take any number up to it.
inline constexpr int32_t kMostMultiprocessors = 4096;

/// y[t][r] (=, or += when accumulate) sum_k W[r][k] x[t][k] on the packed weights, for 1 to
/// kMaxGemvTokens tokens; float32 products and sums in an order that is fixed for a device, and
/// that n_tokens does not change.
struct GemvArgs {
  const uint8_t* weights;  // [rows] of row_bytes(type, cols), aligned to 16 bytes
  DType type;
  int64_t rows, cols;
  const float* x;  // [n_tokens, cols], rows aligned to 16 bytes
  int64_t x_stride;
  float* y;  // [n_tokens, rows]
  int64_t y_stride;
  int32_t n_tokens;
  bool accumulate;
  /// gemv_workspace_floats() floats for sums that several blocks share; may be null if that is 0.
  /// All zero before the first use. Launches that follow one another may share it, whatever their
  /// shapes.
  float* workspace;
  int32_t multiprocessors;  // of the device: into how many runs the work is cut
};
/// Whether gemv() has a kernel for weights of this type (the others are expanded).
bool gemv_supports(DType type);
int64_t gemv_workspace_floats(DType type, int64_t rows, int64_t cols, int32_t multiprocessors);
int gemv(const GemvArgs& args, Stream stream);

inline constexpr int32_t kMaxTensorGemvTokens = 64;
/// Up to so many tokens tensor_gemv rounds x itself.
inline constexpr int32_t kMaxUnroundedTokens = 8;
inline constexpr int32_t kMostGemvParts = 3;

/// As gemv, on tensor cores and with x rounded to bfloat16: y[t][r] of several matrices of one type
/// that share x. Sums in float32 in a fixed order that n_tokens does not change up to 16, nor from
/// 17 on.
struct TensorGemvPart {
  const uint8_t* weights;  // [rows] of row_bytes(type, cols), aligned to 16 bytes
  float* y;                // [n_tokens, rows]
  int64_t y_stride;
  int32_t rows;
};
struct TensorGemvArgs {
  TensorGemvPart parts[kMostGemvParts];
  int32_t n_parts;
  DType type;
  int64_t cols;
  const float* x;  // [n_tokens, cols], rows aligned to 16 bytes: read up to 8 tokens
  int64_t x_stride;
  /// x in bfloat16, rows without gaps, aligned to 16 bytes: read from 9 tokens on, else may be
  /// null.
  const uint16_t* rounded;
  int32_t n_tokens;  // up to kMaxTensorGemvTokens
  bool accumulate;
  int32_t multiprocessors;  // of the device: how many warps share a row's sum
};
bool tensor_gemv_supports(DType type, int64_t cols);
int tensor_gemv(const TensorGemvArgs& args, Stream stream);

// ---- attention (decode_attention.cu, decode_tensor.cu, prefill_attention.cu, attention_mass.cu)

/// One sequence of an attention call, by indices: its table lies among others' in device memory.
struct AttentionSequence : SequenceQueries {
  int32_t first_entry;      // of AttentionArgs::entries
  int32_t first_angle_row;  // of AttentionArgs::angle_rows: [n_rotations, n_tokens]
  int32_t reserved;
  int64_t first_mass;  // of AttentionArgs::masses: [n_tokens, n_entries]; -1: not measured
};

/// out = softmax(scale * q K^T) V over what each query sees. Keys lie rotated in their pages;
/// queries come unrotated and are turned by the angle row of each entry's rotation.
struct AttentionArgs {
  const float* q;  // [n_tokens, n_heads, head_dim], rows without gaps
  float* out;      // likewise
  int32_t n_heads;
  float scale;
  const float* angles;  // [n_rows][2][head_dim/2]: cos, then sin
  bool interleaved;
  KvView<KeyOrder::kBySlot> kv;
  const AttentionSequence* sequences;  // [n_sequences]
  const BlockEntry* entries;           // aligned to 16 bytes
  const int32_t* angle_rows;
  /// [n_tokens, n_heads] log of the softmax's denominator in natural logs, the scale included; null
  /// where nobody measures masses.
  float* lse;
  int64_t* masses;  // see attention_mass
  /// Of decode_attention: decode_workspace_floats(), aligned to 16 bytes; may be null if that is 0.
  float* workspace;
  /// Whether decode_attention may use tensor cores where KV type and shape allow
  /// (decode_tensor.cu), for which it rounds queries and weights to the KV type, as
  /// prefill_attention does.
  bool tensor_cores = false;
  /// Where the blocks that share a token's work on tensor cores count who has finished, so that the
  /// last one merges their parts: [DecodeList::n, n_heads], all zero before the first use and left
  /// zero by each launch. May be null where the workspace may.
  uint32_t* arrivals = nullptr;
};

inline constexpr int32_t kDecodeBlocksEach = 2;
/// Attention of single query tokens, each with its own row of work: any number of tokens of any
/// sequences. Splits a table into runs of entries whose bounds depend on the table alone, so a
/// token's result does not depend on the batch.
struct DecodeList {
  const int32_t* tokens;     // [n] flat tokens; null: token i is the only one of sequence i
  const int32_t* sequences;  // [n] the sequence of each; null with them
  int32_t n;
  int32_t max_entries;  // of those sequences' tables
  /// Blocks of decode_tensor.cu that the device runs at once, kDecodeBlocksEach for each of its
  /// multiprocessors: decides into how many the work is cut, and no bit.
  int32_t blocks_at_once;
};
int64_t decode_workspace_floats(int32_t n_heads, const PageGeometry& geometry, int32_t n_tokens,
                                int32_t max_entries);
int decode_attention(const AttentionArgs& args, const DecodeList& list, Stream stream);

/// Attention of many consecutive query tokens of some sequences on tensor cores, 16-bit KV only:
/// tile i is queries [first, first + kPrefillTile) of a sequence, as far as it has them. Tiles
/// start in the order of the list: those that see most should come first. Entries lie in position
/// order; scale > 0; a query's bits depend on its table alone, not on its tile or the batch.
inline constexpr int32_t kPrefillTile = 64;
struct PrefillTile {
  int32_t sequence;
  int32_t first;  // index of its first query within the sequence's tokens
};
struct PrefillList {
  const PrefillTile* tiles;  // [n]
  int32_t n;
};
bool prefill_supports(const PageGeometry& geometry, int32_t n_heads);
int prefill_attention(const AttentionArgs& args, const PrefillList& list, Stream stream);

/// After attention wrote lse: masses[first_mass + i * n_entries + e] = what query i gives to entry
/// e, summed over heads in units of 2^-32, for sequences with first_mass >= 0. Clears them first.
int attention_mass(const AttentionArgs& args, int32_t n_sequences, int32_t max_tokens,
                   int32_t max_entries, Stream stream);
/// Sums a sequence's masses over its queries as cpu::add_up_uses does; uses + uses_first[s] is the
/// sequence's [n_entries].
int add_up_uses(const AttentionArgs& args, const int64_t* uses_first, BlockUse* uses,
                int32_t n_sequences, int32_t max_entries, Stream stream);

// ---- sampling (sampling.cu)

/// Chooses a token per row exactly as the host's sampler does (kernels/sampling.h).
struct SampleArgs {
  const float* logits;  // [n_rows, vocab_size]
  int64_t stride;
  int32_t vocab_size;
  const SampleRow* rows;  // [n_rows]
  int32_t* tokens;        // [n_rows]; -1 where a logit is not finite
  /// sample_workspace_bytes(), aligned to 16, all zero before its first use; calls of the same
  /// vocab_size may share it.
  void* workspace;
  int32_t n_rows;
  // Whether some row has top_k above 0, top_p below 1, a temperature above 0.
  bool any_top_k, any_top_p, any_draw;
};
bool sample_supports(int32_t vocab_size);
int64_t sample_workspace_bytes(int32_t vocab_size, int32_t n_rows);
int sample(const SampleArgs& args, Stream stream);

}  // namespace paddock::cuda
