// The fast kernels without any instruction set named: what the compiler's baseline offers.
#include <initializer_list>

#include "cpu/attention_tile.h"
#include "cpu/isa.h"
#include "cpu/linear_pack.h"
#include "cpu/vec.h"
#include "half.h"

namespace paddock::cpu::portable {
namespace {

constexpr int kTileTokens = 4;  // tokens that share one pass over the weights
constexpr int kPanelVectors = 1, kPanelTokens = 4;
constexpr bool has_panels(int32_t) { return false; }  // of whole numbers
constexpr int kRowBlock = 2, kVectorBlock = 1, kDirectRows = 0;
using Lanes = F16Lanes;
using IntLanes = I16Lanes;

F16Lanes madd(F16Lanes a, F16Lanes b, F16Lanes c) { return a * b + c; }

F16Lanes halves(const uint8_t* p) {
  F16Lanes v;
  for (int i = 0; i < kLanes; ++i) {
    uint16_t h;
    std::memcpy(&h, p + 2 * i, sizeof(h));
    v[i] = f16_to_f32(h);
  }
  return v;
}

template <typename Value>
I16Lanes dot4_by(I16Lanes acc, const uint8_t* w, int32_t x4, const Value& value) {
  int8_t x[4];
  std::memcpy(x, &x4, sizeof(x));
  for (int r = 0; r < kLanes; ++r) {
    for (int j = 0; j < 4; ++j) acc[r] += value(w[4 * r + j]) * x[j];
  }
  return acc;
}

I16Lanes dot4(I16Lanes acc, const uint8_t* w, int32_t x4) {
  return dot4_by(acc, w, x4, [](uint8_t b) { return int{b}; });
}
I16Lanes dot4_low(I16Lanes acc, const uint8_t* w, int32_t x4) {
  return dot4_by(acc, w, x4, [](uint8_t b) { return b & 15; });
}
I16Lanes dot4_high(I16Lanes acc, const uint8_t* w, int32_t x4) {
  return dot4_by(acc, w, x4, [](uint8_t b) { return b >> 4; });
}

// The order matters.
// clang-format off
#include "cpu/dot_chunks.h"
#include "cpu/exp_lanes.h"
#include "cpu/plain_elements.h"
}  // namespace
#include "cpu/attention_body.h"
#include "cpu/panels.h"
#include "cpu/float_linear.h"
#include "cpu/input_body.h"
#include "cpu/linear_body.h"
#include "cpu/swiglu_body.h"
// clang-format on

}  // namespace paddock::cpu::portable
