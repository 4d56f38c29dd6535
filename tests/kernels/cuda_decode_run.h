// Runs decode_attention on a scene, for its tests.
#pragma once

#include <fmt/format.h>

#include "kernels/cuda_attention_scene.h"

namespace paddock::cuda::test {

struct DecodeOptions {
  int32_t max_entries = 0;  // 0: the scene's
  int32_t only = -1;        // a token, where not all are wanted: other rows become zeros
  bool tensor_cores = false;
  int32_t blocks_at_once = kDecodeBlocksEach * simt::multiprocessors();
  bool in_order = false;  // first token first; where each sequence has one, no list is given
};
struct DecodeResult {
  int error = 0;
  std::vector<float> out, lse;
};

/// The tokens of the scene, last first if not in order.
inline DecodeResult decode(const AttentionScene& scene, const DecodeOptions& options = {}) {
  const int32_t max_entries = options.max_entries == 0 ? scene.max_entries() : options.max_entries;
  AttentionScene::Device device(scene);
  std::vector<int32_t> tokens;
  std::vector<int32_t> sequences;
  for (int32_t s = scene.n_sequences() - 1; s >= 0; --s) {
    const AttentionSequence& sequence = scene.sequences()[s];
    for (int32_t i = sequence.n_tokens - 1; i >= 0; --i) {
      if (options.only >= 0 && sequence.first_token + i != options.only) continue;
      tokens.push_back(sequence.first_token + i);
      sequences.push_back(s);
    }
  }
  if (options.in_order) {
    std::reverse(tokens.begin(), tokens.end());
    std::reverse(sequences.begin(), sequences.end());
  }
  const bool alone = options.in_order && scene.n_sequences() == scene.n_tokens();
  const simt::DeviceBuffer<int32_t> device_tokens(tokens, "tokens");
  const simt::DeviceBuffer<int32_t> device_sequences(sequences, "list sequences");
  const auto n = static_cast<int32_t>(tokens.size());
  const simt::DeviceBuffer<float> workspace(
      static_cast<size_t>(
          decode_workspace_floats(scene.shape().heads, scene.geometry(), n, max_entries)),
      "workspace");
  const std::vector<uint32_t> none(static_cast<size_t>(n * scene.shape().heads));
  const simt::DeviceBuffer<uint32_t> arrivals(none, "arrivals");
  device.args.workspace = workspace.data();
  device.args.tensor_cores = options.tensor_cores;
  if (options.tensor_cores) device.args.arrivals = arrivals.data();
  if (options.only >= 0) {
    device.out.fill(0);
    device.lse.fill(0);
  }
  DecodeResult result;
  const DecodeList list{alone ? nullptr : device_tokens.data(),
                        alone ? nullptr : device_sequences.data(), n, max_entries,
                        options.blocks_at_once};
  result.error = decode_attention(device.args, list, nullptr);
  if (result.error != 0) return result;
  if (arrivals.download() != none) return {kInvalid, {}, {}};
  result.out = device.out.download();
  result.lse = device.lse.download();
  return result;
}

/// The first wrong element, in words; empty if there is none.
inline std::string wrong(const AttentionScene& scene, const DecodeResult& result,
                         const Expected& expected) {
  if (result.error != 0) return fmt::format("error {}", result.error);
  const auto d = static_cast<size_t>(scene.shape().head_dim);
  for (size_t i = 0; i < expected.out.size(); ++i) {
    if (!(std::abs(result.out[i] - expected.out[i]) <= expected.out_room[i / d])) {
      return fmt::format("row {}, dim {}: {} instead of {}, room {}", i / d, i % d, result.out[i],
                         expected.out[i], expected.out_room[i / d]);
    }
  }
  for (size_t i = 0; i < expected.lse.size(); ++i) {
    if (result.lse[i] == expected.lse[i]) continue;  // -infinity too
    if (!(std::abs(result.lse[i] - expected.lse[i]) <= expected.lse_room[i])) {
      return fmt::format("lse of row {}: {} instead of {}", i, result.lse[i], expected.lse[i]);
    }
  }
  return "";
}

}  // namespace paddock::cuda::test
