// Engine options: checked, completed, and turned into sizes before anything is reserved.
#include <algorithm>
#include <limits>

#include "backend/devices.h"
#include "core/checked.h"
#include "core/fail.h"
#include "core/log.h"
#include "core/system.h"
#include "engine/advice.h"
#include "engine/step_sizes.h"
#include "kv/kv_type.h"
#include "kv/reclaim_policy.h"

namespace paddock {
namespace {

/// The least positions that a sequence needs in layers of elastic rules: what the smallest budget
/// keeps, and what comes until the next decision.
int64_t least_resident(const PolicyMap& policies, int32_t block_size) {
  const int64_t floor = policies.floor_budget(block_size);
  return floor + slack_of(policies.interval(), floor) + block_size;
}

/// Positions that layers without a bound must hold at the very least: what bounded ones need while
/// they prefill, or else one block (such a sequence may end as "kv_full").
int64_t min_positions(const EngineSetup& s) {
  int64_t least = s.options.kv.block_size;
  for (int32_t layer = 0; layer < s.policies.size(); ++layer) {
    const LayerRule& rule = s.policies.layer(layer);
    if (rule.bounded()) least = std::max<int64_t>(least, rule.max_resident(s.chunk));
  }
  if (s.policies.is_elastic()) {
    least = std::max<int64_t>(least, least_resident(s.policies, s.options.kv.block_size));
  }
  return std::min(least, s.options.context);
}

/// What depends on the kind of device.
struct DeviceTraits {
  double attention_cost;  // of a multiplication of attention, where one with weights is 1
  int32_t mixed_prefill;  // EngineOptions::mixed_prefill, where nobody says
};
DeviceTraits traits_of(const std::string& device) {
  switch (parse_device(device).kind) {
    case DeviceKind::kCpu:
      // Attention is in float32, and weights are of 8-bit numbers (docs/performance.md).
      return {.attention_cost = 4, .mixed_prefill = 8};
    case DeviceKind::kCuda:
      return {.attention_cost = 1, .mixed_prefill = 256};
  }
  return {};
}

/// Pages that were asked for, or that sequences of the whole context need. Not yet whether they
/// suffice or can be had.
int64_t pool_pages(const EngineSetup& s) {
  const EngineOptions& o = s.options;
  if (o.kv.budget_bytes > 0 && o.kv.budget_share == 0) {
    return pages_in(o.kv.budget_bytes, static_cast<uint64_t>(s.pool.geometry.page_bytes()));
  }
  // One more than there can be stands for all that is too many, and the product stays small:
  // resolve() refuses such a pool.
  constexpr int64_t kTooMany = kMaxPages + 1;
  const int64_t one = std::min(pages_needed(s, o.context), kTooMany);
  const int64_t all = std::min(one * o.max_sequences, kTooMany);
  // How many pages a share of the memory holds is known once weights and tables are counted
  // (fit_pool): there will not be more than these.
  return o.kv.budget_share > 0 ? std::min(all, kMaxPages) : all;
}

/// How many positions cost a token as much in attention as all else that is computed for it: a
/// layer's multiplications with weights, divided by those with the key and the value of one
/// position.
double positions_per_token(const LlamaConfig& c, const DeviceTraits& device) {
  const double q = static_cast<double>(c.n_heads) * c.head_dim;
  const double kv = static_cast<double>(c.n_kv_heads) * c.head_dim;
  const double weights = c.hidden_size * (2 * q + 2 * kv + 3.0 * c.intermediate_size);
  return weights / (2 * q) / device.attention_cost;
}

/// True if some query may meet a key further away than the model was trained for: what a window or
/// compact positions bound stays near, however long the sequence grows.
bool reaches_beyond(const PolicyMap& policies, const EngineOptions& o, int64_t trained) {
  for (int32_t i = 0; i < policies.size(); ++i) {
    const LayerRule& rule = policies.layer(i);
    const bool near = rule.has_window() || rule.moves_queries();
    const int64_t farthest = near && rule.bounded() ? rule.max_resident(o.batch_size) : o.context;
    if (std::min(farthest, o.context) > trained) return true;
  }
  return false;
}

}  // namespace

int64_t pages_needed(const EngineSetup& s, int64_t positions) {
  return CacheManager::pages_needed(s.policies, s.options.kv.block_size, positions,
                                    std::min<int64_t>(s.chunk, positions));
}

int64_t least_pages_needed(const EngineSetup& s, int64_t positions) {
  if (!s.policies.is_elastic() || s.options.kv.pressure == KvPressure::kPreempt) {
    return pages_needed(s, positions);
  }
  const int32_t block_size = s.options.kv.block_size;
  const int64_t least = std::min(positions, least_resident(s.policies, block_size));
  return s.policies.sum_pages(block_size, [&](int32_t layer) {
    const LayerRule& rule = s.policies.layer(layer);
    return rule.max_pages(block_size, rule.is_elastic ? least : positions,
                          std::min<int64_t>(s.chunk, positions));
  });
}

int64_t min_pages(const EngineSetup& s) {
  const int64_t least = min_positions(s);
  const int32_t block_size = s.options.kv.block_size;
  return s.policies.sum_pages(block_size, [&](int32_t layer) {
    const LayerRule& rule = s.policies.layer(layer);
    // A layer with a bound must hold a sequence of any length.
    return rule.max_pages(block_size, rule.bounded() ? s.options.context : least, s.chunk);
  });
}

void EngineSetup::set_pages(int64_t n) {
  for_each([n](EngineSetup& s) {
    s.pool.n_pages = n;
    s.options.kv.budget_bytes = static_cast<uint64_t>(n) * s.pool.geometry.page_bytes();
  });
}

RulesId most_needing(const EngineSetup& setup) {
  RulesId most = 0;
  for (RulesId rules = 1; rules < setup.n_rules(); ++rules) {
    if (min_pages(setup.of(rules)) > min_pages(setup.of(most))) most = rules;
  }
  return most;
}

std::vector<SequenceRules> sequence_rules(const EngineSetup& setup) {
  std::vector<SequenceRules> all;
  for (RulesId rules = 0; rules < setup.n_rules(); ++rules) {
    const EngineSetup& s = setup.of(rules);
    all.push_back({s.policies, s.longest, s.options.context});
  }
  return all;
}

void check_pool(const LlamaConfig& config, const EngineSetup& setup, Wanted wanted) {
  const RulesId rules = most_needing(setup);
  const EngineSetup& s = setup.of(rules);
  const int64_t least = min_pages(s);
  if (s.pool.n_pages >= least) return;
  wanted.least = std::max<int64_t>(wanted.positions, 1);
  // Where every layer has a bound, proposals are for sequences of any length.
  wanted.positions = s.policies.has_unbounded_layer() ? wanted.least : s.options.context;
  const int64_t page_bytes = s.pool.geometry.page_bytes();
  throw Error(
      ErrorCode::kOutOfMemory,
      fmt::format("the KV budget of {} bytes holds {} pages, but policy '{}' needs at least "
                  "{} pages ({} bytes, prefill chunks of {} tokens included)",
                  s.options.kv.budget_bytes, s.pool.n_pages, s.options.kv.policy, least,
                  least * page_bytes, s.chunk),
      propose_for(config, setup, rules, wanted));
}

EngineSetup lay_out(const LlamaConfig& config, const EngineOptions& options, PolicyMap policies) {
  EngineOptions o = options;
  if (o.context == 0) {
    o.context = policies.has_unbounded_layer() ? config.context_length : kMaxPositions;
  }
  // A sequence may be of any length if the context has room for what its elastic rules cannot give
  // up, and for what comes until the next decision.
  const bool is_endless = policies.is_elastic() && policies.is_endless() &&
                          o.context >= least_resident(policies, o.kv.block_size);
  const int64_t longest = is_endless ? kMaxPositions : o.context;
  const int32_t chunk = chunk_of(o);
  const PageGeometry geometry{config.n_kv_heads, o.kv.block_size, config.head_dim,
                              element_type(o.kv.type)};
  EngineSetup setup{std::move(o),
                    options,
                    std::move(policies),
                    longest,
                    chunk,
                    {.n_pages = 0, .geometry = geometry},
                    0,
                    0,
                    positions_per_token(config, traits_of(options.device))};
  setup.pool.n_pages = setup.reserved_pages = pool_pages(setup);
  if (options.kv.max_budget_bytes > 0) {
    const auto page_bytes = static_cast<uint64_t>(geometry.page_bytes());
    setup.reserved_pages = pages_in(options.kv.max_budget_bytes, page_bytes);
    // A budget that nobody gave is no more than what is reserved.
    if (options.kv.budget_bytes == 0) {
      setup.pool.n_pages = std::min(setup.pool.n_pages, setup.reserved_pages);
    }
  }
  return setup;
}

PolicyMap parse_policies(const LlamaConfig& config, const EngineSetup& setup,
                         const Wanted& wanted) {
  const KvOptions& kv = setup.asked.kv;
  try {
    check_custom_policies(kv.custom_policies);
    PolicyMap policies = kv.custom_policy != nullptr
                             ? PolicyMap::uniform(kv.custom_policy, config.n_layers)
                             : PolicyMap::parse(kv.policy, config.n_layers, kv.custom_policies);
    policies.check_block_size(kv.block_size);
    return policies;
  } catch (const Error& e) {
    // What a host's own policy says is the host's to mend.
    const bool own =
        kv.custom_policy != nullptr || PolicyMap::names_custom(kv.policy, kv.custom_policies);
    if (own) throw;
    throw Error(e.code(), e.what(), propose_policy(config, setup, wanted));
  }
}

namespace {

/// Lays out what requests and sessions may have in place of the engine's own rules.
void outline_others(const LlamaConfig& config, EngineSetup& setup) {
  const std::vector<std::string>& specs = setup.asked.kv.other_policies;
  int64_t pages = setup.pool.n_pages, reserved = setup.reserved_pages;
  for (size_t i = 0; i < specs.size(); ++i) {
    EngineSetup other;
    other.asked = setup.asked;
    take_spec(specs[i], other.asked.kv);
    other.asked.kv.other_policies.clear();
    try {
      PolicyMap policies = parse_policies(config, other, {});
      setup.others.push_back(lay_out(config, other.asked, std::move(policies)));
    } catch (const Error& e) {
      throw Error(e.code(), fmt::format("kv.other_policies[{}]: {}", i, e.problem()),
                  as_others({e.proposals().begin(), e.proposals().end()}, specs, i));
    }
    pages = std::max(pages, setup.others.back().pool.n_pages);
    reserved = std::max(reserved, setup.others.back().reserved_pages);
  }
  setup.for_each([&](EngineSetup& s) {
    s.pool.n_pages = pages;
    s.reserved_pages = reserved;
  });
}

}  // namespace

EngineSetup outline(const Model& model, const EngineOptions& options) {
  return outline(model.data().config, options);
}

EngineSetup outline(const LlamaConfig& config, const EngineOptions& options) {
  EngineOptions o = options;
  o.validate();
  if (o.device == "auto") o.device = "cpu";
  if (o.threads == 0) o.threads = usable_cores();
  if (o.mixed_prefill == 0) o.mixed_prefill = traits_of(o.device).mixed_prefill;
  if (o.kv.type == KvType::kAuto) {
    o.kv.type = o.precision == Precision::kReference ? KvType::kF32 : KvType::kF16;
  }
  EngineSetup asked;
  asked.asked = o;
  PolicyMap policies = parse_policies(config, asked, {});
  if (o.kv.custom_policy != nullptr) o.kv.policy = policies.layer(0).name;
  EngineSetup setup = lay_out(config, o, std::move(policies));
  outline_others(config, setup);
  return setup;
}

EngineSetup resolve(const Model& model, const EngineOptions& options) {
  const LlamaConfig& config = model.data().config;
  EngineSetup setup = outline(model, options);
  const EngineOptions& o = setup.asked;
  const int64_t page_bytes = setup.pool.geometry.page_bytes();
  for (RulesId rules = 0; rules < setup.n_rules() && setup.pool.n_pages > kMaxPages; ++rules) {
    const EngineSetup& s = setup.of(rules);
    const int64_t pages = pages_needed(s, s.options.context);
    if (std::min(pages, kMaxPages) * o.max_sequences <= kMaxPages) continue;
    throw Error(
        ErrorCode::kOutOfMemory,
        fmt::format(
            "a context of {} positions needs {} pages of {} bytes{}", s.options.context, pages,
            page_bytes,
            o.max_sequences > 1 ? fmt::format(", for each of {} sequences", o.max_sequences) : ""),
        propose_for(config, setup, rules, {.max_bytes = available_memory() / 2}));
  }
  if (o.kv.budget_share == 0) check_pool(config, setup, {});
  bool is_far = false;
  setup.for_each([&](const EngineSetup& s) {
    is_far |= reaches_beyond(s.policies, s.options, config.context_length);
  });
  if (o.context > 0 && is_far) {
    log(LogLevel::kWarning,
        "the context of {} positions is longer than the {} that the model was trained for; beyond "
        "those its answers degrade",
        o.context, config.context_length);
  }
  setup.set_pages(setup.pool.n_pages);
  return setup;
}

namespace {

/// Every kind of weight matrix once.
std::vector<LinearShape> linear_shapes(const LlamaTensors& tensors) {
  std::vector<LinearShape> shapes;
  const auto add = [&](const TensorView& t) {
    const bool known = std::any_of(shapes.begin(), shapes.end(), [&](const LinearShape& s) {
      return s.type == t.dtype && s.rows == t.rows() && s.cols == t.cols();
    });
    if (!known) shapes.push_back({t.dtype, t.rows(), t.cols()});
  };
  add(tensors.output);
  for (const LlamaTensors::Layer& t : tensors.layers) {
    for (const TensorView* w : t.matrices()) add(*w);
  }
  return shapes;
}

}  // namespace

BackendLimits limits_for(const EngineSetup& setup, const LlamaConfig& config,
                         const LlamaTensors& tensors, const StepSizes& steps) {
  PoolShape pool = setup.pool;
  pool.n_pages = setup.reserved_pages;
  return {.model = {.n_heads = config.n_heads,
                    .vocab_size = config.vocab_size,
                    .max_cols = std::max({config.hidden_size, config.intermediate_size,
                                          config.n_heads * config.head_dim}),
                    .linears = linear_shapes(tensors),
                    .inverse_frequencies = rope_inverse_frequencies(config.rope, config.head_dim),
                    .attention_factor = static_cast<float>(rope_attention_factor(config.rope)),
                    .rope_interleaved = config.rope.interleaved},
          .step = {.max_tokens = max_step_tokens(setup.options),
                   .max_angle_rows = steps.max_angle_rows,
                   .max_sequences = setup.options.max_sequences,
                   .max_logit_rows = max_logit_rows(setup.options),
                   .max_entries = steps.max_entries,
                   .max_measured_entries = steps.max_measured_entries()},
          .pool = pool};
}

}  // namespace paddock
