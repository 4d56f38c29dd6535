// From tensors of a file to weights in a backend's own form.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/weights.h"
#include "model/model_data.h"
#include "model/weights.h"

namespace paddock {

/// Gives every tensor to a backend in its own form; originals that were repacked leave memory.
std::shared_ptr<const LlamaWeights> make_weights(const detail::ModelData& model,
                                                 WeightStore& store);
/// Bytes make_weights would reserve.
uint64_t weights_bytes(const LlamaTensors& tensors, const WeightStore& store);

}  // namespace paddock
