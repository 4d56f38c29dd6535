// Scaling of RoPE that a host asks for, in place of the file's.
#include <cmath>

#include "core/fail.h"
#include "model/config.h"
#include "paged_kv.h"

namespace paddock {
namespace {

using Kind = RopeConfig::Kind;

RopeScaling scaling_of(const RopeConfig& rope) {
  switch (rope.kind) {
    case Kind::kLinear:
      return RopeScaling::kLinear;
    case Kind::kLlama3:
      return RopeScaling::kLlama3;
    case Kind::kYarn:
      return RopeScaling::kYarn;
    case Kind::kDefault:
      break;
  }
  return RopeScaling::kNone;
}

Kind kind_of(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kLinear:
      return Kind::kLinear;
    case RopeScaling::kLlama3:
      return Kind::kLlama3;
    case RopeScaling::kYarn:
      return Kind::kYarn;
    default:
      return Kind::kDefault;
  }
}

void check(const RopeOptions& o) {
  check_range("rope.scaling", static_cast<int64_t>(o.scaling),
              static_cast<int64_t>(RopeScaling::kFile), static_cast<int64_t>(RopeScaling::kYarn));
  check_range("rope.original_context", o.original_context, 0, kMaxPositions);
  if (o.factor != 0 && !(o.factor >= 1 && o.factor <= kMaxPositions)) {
    fail(ErrorCode::kInvalidArgument,
         "rope.factor is {}; it must be from 1 (nothing is stretched) to {}, or 0 (as the file "
         "says)",
         o.factor, kMaxPositions);
  }
}

/// Positions that the file's model was trained for before its own scaling.
int64_t original_context(const LlamaConfig& c) {
  // Files with divisors say neither the kind that they stand for nor the length before it.
  if (!c.rope.divisors.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "the file scales RoPE by a tensor (rope_freqs) and does not say from which context on; "
         "give rope.original_context (8192 for Llama 3.1 to 3.3)");
  }
  if (c.rope.original_context > 0) return c.rope.original_context;
  return std::llround(static_cast<double>(c.context_length) / c.rope.factor);
}

}  // namespace

const char* rope_scaling_name(RopeScaling scaling) noexcept {
  switch (scaling) {
    case RopeScaling::kFile:
      return "file";
    case RopeScaling::kNone:
      return "none";
    case RopeScaling::kLinear:
      return "linear";
    case RopeScaling::kLlama3:
      return "llama3";
    case RopeScaling::kYarn:
      return "yarn";
  }
  return "?";
}

void override_rope(LlamaConfig& c, const RopeOptions& o) {
  check(o);
  if (o.scaling == RopeScaling::kFile && o.factor == 0 && o.original_context == 0) return;
  RopeScaling scaling = o.scaling;
  if (scaling == RopeScaling::kFile) scaling = scaling_of(c.rope);
  const bool stretches = scaling != RopeScaling::kNone;
  if (!stretches && o.scaling == RopeScaling::kFile) {
    fail(ErrorCode::kInvalidArgument,
         "rope.factor or rope.original_context is given, but no kind, and the file names none that "
         "could be changed; give rope.scaling: linear, llama3 or yarn");
  }
  if (!stretches && o.factor > 1) {
    fail(ErrorCode::kInvalidArgument,
         "rope.scaling is none, and rope.factor {}; leave one of them out", o.factor);
  }
  const bool same_kind = scaling_of(c.rope) == scaling && c.rope.divisors.empty();
  const double factor = o.factor > 0 ? o.factor : same_kind ? c.rope.factor : 0;
  if (stretches && factor == 0) {
    fail(ErrorCode::kInvalidArgument,
         "rope.scaling is {}, and neither rope.factor nor the file says by how much; give "
         "rope.factor, such as 2",
         rope_scaling_name(scaling));
  }
  const int64_t original = o.original_context > 0 ? o.original_context : original_context(c);
  const double context = static_cast<double>(original) * (stretches ? factor : 1);
  if (context > kMaxPositions) {
    fail(ErrorCode::kInvalidArgument,
         "rope.factor {} makes {} positions {:.0f}; at most {} are possible", factor, original,
         context, kMaxPositions);
  }
  RopeConfig next;
  if (same_kind) next = c.rope;  // ramps and bounds of the kind
  next.theta = c.rope.theta;
  next.interleaved = c.rope.interleaved;
  next.kind = kind_of(scaling);
  next.factor = stretches ? factor : 1;
  next.original_context = original;
  next.attention_factor = 0;  // what follows from the factor
  c.rope = next;
  c.context_length = static_cast<int64_t>(context);
  validate(c);
}

}  // namespace paddock
