// Attention, and what it measures.
#include <algorithm>
#include <cmath>

#include "backend/cuda/cuda_steps.h"

namespace paddock::cuda {

AttentionArgs CudaSteps::attention_args(const LayerUpload& of, Buffer q, Buffer out) const {
  return {.q = q.data,
          .out = out.data,
          .n_heads = limits_.model.n_heads,
          .scale = 1.0F / std::sqrt(static_cast<float>(limits_.pool.geometry.head_dim)),
          .angles = angles_.as<float>(),
          .interleaved = limits_.model.rope_interleaved,
          .kv = pages_.view().read_only(),
          .sequences = of.sequences,
          .entries = of.entries,
          .angle_rows = of.angle_rows,
          .lse = of.measured ? lse_.as<float>() : nullptr,
          .masses = masses_.as<int64_t>(),
          .workspace = workspace_.as<float>(),
          .tensor_cores = !reference_,
          .arrivals = arrivals_.as<uint32_t>()};
}

void CudaSteps::attention(int32_t layer, Buffer q, Buffer out) {
  device_.mark(2 * layer);
  const LayerUpload& of = upload_->layers()[layer];
  const AttentionArgs args = attention_args(of, q, out);
  if (upload_->n_tiles() > 0) {
    device_.launch("prefill_attention",
                   cuda::prefill_attention(args, {upload_->tiles(), upload_->n_tiles()}, stream()));
  }
  // Where every sequence has one token, no list need be read.
  const bool alone =
      upload_->n_decode() == upload_->n_sequences() && upload_->n_decode() <= decode_most(limits_);
  for (int32_t first = 0; first < upload_->n_decode(); first += decode_most(limits_)) {
    device_.launch("decode_attention",
                   cuda::decode_attention(
                       args,
                       {alone ? nullptr : upload_->decode_tokens() + first,
                        alone ? nullptr : upload_->decode_sequences() + first,
                        std::min(decode_most(limits_), upload_->n_decode() - first), of.max_entries,
                        kDecodeBlocksEach * device_.runtime()->multiprocessors()},
                       stream()));
  }
  if (of.measured) measure(layer, args);
  device_.mark(2 * layer + 1);
}

void CudaSteps::measure(int32_t layer, const AttentionArgs& args) {
  const LayerUpload& of = upload_->layers()[layer];
  int32_t most = 0;
  for (const SequenceView& s : plan_->layers[layer].sequences) most = std::max(most, s.n_tokens);
  const int32_t n = upload_->n_sequences();
  device_.launch("attention_mass", cuda::attention_mass(args, n, most, of.max_entries, stream()));
  device_.launch("add_up_uses", cuda::add_up_uses(args, of.uses_first, uses_.as<BlockUse>(), n,
                                                  of.max_entries, stream()));
}

bool CudaSteps::asks_for_norms() const {
  return std::any_of(plan_->layers.begin(), plan_->layers.end(),
                     [](const LayerPlan& l) { return l.key_norms != nullptr; });
}

void CudaSteps::bring_measures() {
  if (upload_->n_uses() > 0) {
    device_.copy_out(host_measures_.as<uint8_t>(), uses_.as<BlockUse>(),
                     static_cast<uint64_t>(upload_->n_uses()) * sizeof(BlockUse));
  }
  if (asks_for_norms()) {
    device_.copy_out(host_measures_.as<uint8_t>() + uses_bytes(limits_), norms_.as<int64_t>(),
                     norms_bytes(limits_));
  }
}

}  // namespace paddock::cuda
