#include "engine/plan.h"

#include <algorithm>

#include "core/fail.h"
#include "core/search.h"
#include "engine/advice.h"
#include "engine/engine_sizes.h"
#include "model/make_weights.h"

namespace paddock {
namespace {

class Planner {
 public:
  Planner(const ModelHeaders& model, const EngineOptions& options, BackendMaker maker)
      : model_(model), setup_(outline(model.data.config, without_share(options))) {
    const EngineOptions& o = setup_.options;
    backend_ = maker(
        o.device,
        {.reference = o.precision == Precision::kReference, .threads = o.threads, .isa = o.isa});
    weights_ = weights_bytes(model.data.tensors, backend_->weights());
  }

  EnginePlan plan() const;
  PlanFit fit(uint64_t memory) const;

 private:
  static EngineOptions without_share(EngineOptions options) {
    options.kv.budget_share = 0;
    return options;
  }
  const LlamaConfig& config() const { return model_.data.config; }
  EngineSizes sizes_of(const EngineSetup& s) const {
    return engine_sizes(config(), model_.data.tensors, s, *backend_);
  }
  uint64_t total(const EngineSetup& s) const {
    const EngineSizes sizes = sizes_of(s);
    return weights_ + s.reserved_bytes() + sizes.activations + sizes.tables;
  }
  static bool is_possible(const EngineSetup& s) {
    return s.reserved_pages <= kMaxPages && s.pool.n_pages >= min_pages(s.of(most_needing(s)));
  }
  /// Whether the engine could be made.
  bool fits(const EngineOptions& asked, uint64_t memory) const {
    const EngineSetup s = outline(config(), asked);
    return is_possible(s) && total(s) <= memory;
  }
  std::vector<Proposal> proposals(uint64_t memory, const PlanFit& found) const;
  void count_reads(EnginePlan& plan) const;

  const ModelHeaders& model_;
  EngineSetup setup_;
  std::unique_ptr<Backend> backend_;
  uint64_t weights_ = 0;
};

EnginePlan Planner::plan() const {
  if (setup_.reserved_pages > kMaxPages) {
    fail(ErrorCode::kOutOfMemory,
         "a context of {} positions for {} sequences needs {} pages; lower the context or their "
         "number",
         setup_.options.context, setup_.options.max_sequences, setup_.reserved_pages);
  }
  EnginePlan plan;
  const EngineSizes sizes = sizes_of(setup_);
  plan.model = config().name;
  plan.estimated = model_.estimated;
  plan.options = setup_.options;
  plan.options.kv.budget_bytes = setup_.reserved_bytes();
  plan.trained_context = config().context_length;
  plan.weights_bytes = weights_;
  plan.activation_bytes = sizes.activations;
  plan.table_bytes = sizes.tables;
  plan.pool_bytes = setup_.reserved_bytes();
  plan.pool_pages = setup_.reserved_pages;
  plan.page_bytes = static_cast<uint64_t>(setup_.pool.geometry.page_bytes());
  plan.total_bytes = total(setup_);
  const auto block = static_cast<uint64_t>(setup_.options.kv.block_size);
  plan.kv_bytes_per_token_layer.assign(config().n_layers, plan.page_bytes / block);
  plan.kv_bytes_per_token = plan.page_bytes / block * static_cast<uint64_t>(config().n_layers);
  count_reads(plan);
  plan.warnings = config().warnings;
  return plan;
}

void Planner::count_reads(EnginePlan& plan) const {
  const LlamaTensors& t = model_.data.tensors;
  const WeightStore& store = backend_->weights();
  const auto add = [&](const TensorView& w) {
    const uint64_t own = store.linear_bytes(w);
    const auto in_file = static_cast<uint64_t>(w.rows() * row_bytes(w.dtype, w.cols()));
    plan.weights_read_bytes += own > 0 ? own : in_file;  // 0: read where it lies
  };
  add(t.output);
  for (const LlamaTensors::Layer& layer : t.layers) {
    for (const TensorView* w : layer.matrices()) add(*w);
    for (const TensorView* w : layer.vectors()) plan.weights_read_bytes += vector_bytes(*w);
  }
  plan.weights_read_bytes += vector_bytes(t.output_norm);
  for (int32_t layer = 0; layer < config().n_layers; ++layer) {
    const LayerRule& rule = setup_.policies.layer(layer);
    const int64_t most = std::min({setup_.options.context, rule.max_resident(1), rule.max_seen()});
    plan.kv_read_bytes += static_cast<uint64_t>(most) * plan.kv_bytes_per_token_layer[layer];
  }
}

PlanFit Planner::fit(uint64_t memory) const {
  PlanFit fit;
  if (memory == 0) memory = backend_->available_bytes();
  fit.memory_bytes = memory;
  const EngineOptions& asked = setup_.asked;
  fit.fits = is_possible(setup_) && total(setup_) <= memory;
  fit.memory_context = largest(0, kUnlimited, [&](int64_t context) {
    EngineOptions longer = asked;
    longer.context = context;
    return fits(longer, memory);
  });
  const int64_t most = std::max(config().context_length, asked.context);
  fit.max_context = setup_.policies.has_unbounded_layer() ? std::min(fit.memory_context, most)
                                                          : fit.memory_context;
  fit.max_users = static_cast<int32_t>(largest(0, kMaxSequences, [&](int64_t users) {
    EngineOptions more = asked;
    more.max_sequences = static_cast<int32_t>(users);
    return fits(more, memory);
  }));
  if (!fit.fits) fit.proposals = proposals(memory, fit);
  return fit;
}

/// A shorter context, fewer sequences, or what advice.h finds of rules for one of them in its share
/// of what weights and tables leave.
std::vector<Proposal> Planner::proposals(uint64_t memory, const PlanFit& found) const {
  std::vector<Proposal> out;
  const auto add = [&](auto Proposal::*what, int64_t value) {
    if (value <= 0) return;
    Proposal proposal;
    proposal.*what =
        static_cast<typename std::decay_t<decltype(proposal.*what)>::value_type>(value);
    proposal.lowers = true;
    out.push_back(std::move(proposal));
  };
  add(&Proposal::context, found.max_context);
  if (setup_.options.max_sequences > 1) add(&Proposal::max_sequences, found.max_users);
  const uint64_t others = total(setup_) - setup_.reserved_bytes();
  if (others >= memory) return out;
  EngineOptions one = setup_.asked;
  const auto users = static_cast<uint64_t>(one.max_sequences);
  one.max_sequences = 1;
  const uint64_t left = without_reserve(memory - others);
  for (Proposal& proposal :
       propose(config(), outline(config(), one),
               {.positions = setup_.asked.context, .max_bytes = left / users})) {
    if (!proposal.policy || proposal.context || proposal.budget_bytes) continue;
    if (fits(with_proposal(setup_.asked, proposal), memory)) out.push_back(std::move(proposal));
  }
  return out;
}

}  // namespace

EnginePlan plan_engine(const ModelHeaders& model, const EngineOptions& options,
                       std::span<const uint64_t> memories, BackendMaker maker) {
  const Planner planner(model, options, maker);
  EnginePlan plan = planner.plan();
  for (const uint64_t memory : memories) plan.fits.push_back(planner.fit(memory));
  return plan;
}

EnginePlan plan_engine(const std::string& path, const EngineOptions& options,
                       std::span<const uint64_t> memories) {
  return at_the_edge(
      [&] { return plan_engine(*read_headers(path), options, memories, make_backend); });
}

}  // namespace paddock
