// Ranges every configuration must keep.
#include "model/config.h"

#include <cmath>

#include "core/fail.h"
#include "paged_kv.h"

namespace paddock {
namespace {

void check(const char* what, int64_t value, int64_t least, int64_t most) {
  check_range(what, value, least, most, ErrorCode::kBadFile);
}

}  // namespace

void validate(const LlamaConfig& c) {
  check("the number of layers", c.n_layers, 1, 4096);
  check("hidden_size", c.hidden_size, 1, 1 << 20);
  check("intermediate_size", c.intermediate_size, 1, 1 << 22);
  check("the number of heads", c.n_heads, 1, 4096);
  check("the number of KV heads", c.n_kv_heads, 1, c.n_heads);
  check("head_dim", c.head_dim, 2, 1024);
  check("vocab_size", c.vocab_size, 1, 1 << 24);
  check("the context length", c.context_length, 1, kMaxPositions);
  if (c.n_heads % c.n_kv_heads != 0) {
    fail(ErrorCode::kBadFile, "{} heads are not a multiple of {} KV heads", c.n_heads,
         c.n_kv_heads);
  }
  if (c.head_dim % 2 != 0) fail(ErrorCode::kBadFile, "head_dim {} is odd", c.head_dim);
  if (!(c.norm_eps >= 0.0F) || !std::isfinite(c.norm_eps)) {
    fail(ErrorCode::kBadFile, "the norm epsilon is {}", c.norm_eps);
  }
  const RopeConfig& r = c.rope;
  if (!(r.theta > 0.0) || !std::isfinite(r.theta)) {
    fail(ErrorCode::kBadFile, "the rope base is {}; it must be positive", r.theta);
  }
  if (!(r.factor > 0.0) || !std::isfinite(r.factor)) {
    fail(ErrorCode::kBadFile, "the rope scaling factor is {}; it must be positive", r.factor);
  }
  if (!(r.attention_factor >= 0.0) || !std::isfinite(r.attention_factor)) {
    fail(ErrorCode::kBadFile, "the rope scaling's attention factor is {}; it must be positive",
         r.attention_factor);
  }
  if (r.kind == RopeConfig::Kind::kYarn &&
      !(r.beta_fast > 0.0 && r.beta_slow > 0.0 && r.theta > 1.0)) {
    fail(
        ErrorCode::kBadFile,
        "rope scaling: beta_fast is {}, beta_slow {} and the base {}; yarn needs positive ones and "
        "a base above 1",
        r.beta_fast, r.beta_slow, r.theta);
  }
  const bool needs_original =
      r.kind == RopeConfig::Kind::kLlama3 || r.kind == RopeConfig::Kind::kYarn;
  if (needs_original && r.original_context < 1) {
    fail(ErrorCode::kBadFile, "the rope scaling's original context length is {}",
         r.original_context);
  }
  if (r.kind == RopeConfig::Kind::kLlama3 && !(r.low_freq_factor < r.high_freq_factor)) {
    fail(ErrorCode::kBadFile, "rope scaling: low_freq_factor {} must be below high_freq_factor {}",
         r.low_freq_factor, r.high_freq_factor);
  }
}

}  // namespace paddock
