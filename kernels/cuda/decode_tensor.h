// What decode_attention.cu hands to decode_tensor.cu.
#pragma once

#include "cuda/launch.h"

namespace paddock::cuda {

/// Of arguments that decode_attention() takes: whether decode_tensor() does.
bool decode_tensor_supports(const AttentionArgs& args);
int decode_tensor(const AttentionArgs& args, const DecodeList& list, Stream stream);

}  // namespace paddock::cuda
