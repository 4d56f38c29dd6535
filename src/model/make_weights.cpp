#include "model/make_weights.h"

#include <initializer_list>

namespace paddock {
namespace {

/// Every weight of a model, with the tensors that it is made of: those of one linear share their
/// input.
template <typename Visitor>
void for_each_weight(const LlamaTensors& tensors, LlamaWeights& weights, Visitor& visitor) {
  visitor.embedding(tensors.embedding, weights.embedding);
  visitor.vector(tensors.output_norm, weights.output_norm);
  visitor.linear({&tensors.output}, weights.output);
  weights.layers.resize(tensors.layers.size());
  for (size_t i = 0; i < tensors.layers.size(); ++i) {
    const LlamaTensors::Layer& from = tensors.layers[i];
    LlamaWeights::Layer& to = weights.layers[i];
    visitor.vector(from.attn_norm, to.attn_norm);
    visitor.linear({&from.q, &from.k, &from.v}, to.qkv);
    visitor.linear({&from.o}, to.o);
    visitor.vector(from.ffn_norm, to.ffn_norm);
    visitor.linear({&from.gate, &from.up}, to.gate_up);
    visitor.linear({&from.down}, to.down);
  }
}

using Parts = std::initializer_list<const TensorView*>;

struct Maker {
  const detail::ModelData& model;
  WeightStore& store;
  uint64_t& bytes;

  void embedding(const TensorView& tensor, std::unique_ptr<EmbeddingWeight>& to) {
    to = store.make_embedding(tensor, bytes);
  }
  void vector(const TensorView& tensor, std::unique_ptr<VectorWeight>& to) {
    to = store.make_vector(tensor, bytes);
  }
  void linear(Parts parts, std::unique_ptr<LinearWeight>& to) {
    to = store.make_linear({parts.begin(), parts.size()}, bytes);
    if (!store.repacks()) return;
    for (const TensorView* part : parts) model.release(*part);
  }
};

struct Counter {
  const LlamaTensors& tensors;
  const WeightStore& store;
  uint64_t bytes = 0;

  void embedding(const TensorView& tensor, const std::unique_ptr<EmbeddingWeight>&) {
    // Where it is the output matrix, too, a store that copies it has one copy: that of linear().
    const bool tied = tensor.data.data() == tensors.output.data.data();
    if (!tied) bytes += store.embedding_bytes(tensor);
  }
  void vector(const TensorView& tensor, const std::unique_ptr<VectorWeight>&) {
    bytes += vector_bytes(tensor);
  }
  void linear(Parts parts, const std::unique_ptr<LinearWeight>&) {
    for (const TensorView* part : parts) bytes += store.linear_bytes(*part);
  }
};

}  // namespace

std::shared_ptr<const LlamaWeights> make_weights(const detail::ModelData& model,
                                                 WeightStore& store) {
  auto weights = std::make_shared<LlamaWeights>();
  Maker maker{model, store, weights->bytes};
  for_each_weight(model.tensors, *weights, maker);
  return weights;
}

uint64_t weights_bytes(const LlamaTensors& tensors, const WeightStore& store) {
  LlamaWeights none;
  Counter counter{tensors, store};
  for_each_weight(tensors, none, counter);
  return counter.bytes;
}

}  // namespace paddock
