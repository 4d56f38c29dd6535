// Options that several commands take: which model is run and how, and how tokens are chosen.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <random>

#include "advice.h"
#include "common.h"
#include "wording.h"

namespace cli {
namespace {

void check(bool ok, const char* option, const std::string& value, const std::string& right) {
  if (!ok) throw UsageError(fmt::format("{} {}: must be {}", option, value, right));
}

/// A setting of the library's, the option that sets it here, and what was given.
struct GivenSetting {
  std::string_view setting;
  const char* option;
  std::string value;
};

/// Lets the library judge settings; what it says against one is said of its option.
void check_by(const std::function<void()>& judge, const std::vector<GivenSetting>& given) {
  try {
    judge();
  } catch (const paddock::Error& e) {
    const std::string_view problem = e.problem();  // "top_k is -1; it must be 0 (off) or more"
    const size_t range = problem.find("must be ");
    for (const GivenSetting& g : given) {
      if (range == std::string_view::npos ||
          !problem.starts_with(std::string(g.setting) + " is ")) {
        continue;
      }
      throw UsageError(fmt::format("{} {}: {}", g.option, g.value, problem.substr(range)));
    }
    throw UsageError(std::string(problem));
  }
}

/// "42=-1.5".
std::pair<paddock::TokenId, float> parse_bias(const std::string& text) {
  const auto refuse = [&](const char* right) {
    throw UsageError(fmt::format("--logit-bias {}: must be {}", text, right));
  };
  constexpr const char* kForm = "ID=BIAS, such as 42=-1.5";
  const char* at = text.data() + std::min(text.find('='), text.size());
  const char* end = text.data() + text.size();
  paddock::TokenId id = 0;
  const auto [id_end, error] = std::from_chars(text.data(), at, id);
  if (error != std::errc() || id_end != at || id < 0 || end - at < 2) refuse(kForm);
  char* bias_end = nullptr;
  const double wide = std::strtod(at + 1, &bias_end);
  if (bias_end != end || std::isnan(wide)) refuse(kForm);
  const auto bias = static_cast<float>(wide);
  const bool forbids = std::isinf(wide) && wide < 0;
  if (!std::isfinite(bias) && !forbids) {
    refuse("ID=BIAS with BIAS from -3.4028e38 to 3.4028e38, or -inf, which forbids the token");
  }
  return {id, bias};
}

}  // namespace

double as_written(float value) { return std::stod(fmt::format("{}", value)); }

void EngineArgs::add_to(Options& options, bool needs_model) {
  Option path = options.add("-m,--model", model, "GGUF file or Hugging Face folder").not_empty();
  if (needs_model) path.required();
  options.add("-t,--threads", threads, "worker threads (default: physical cores)");
  options.add("--device", device, "auto, cpu or cuda").shows_default();
  options.add("--precision", precision, "fast or reference").shows_default();
  options.add("-c,--ctx-size", context, "longest sequence admitted, in positions");
  options.add("-b,--batch-size", batch, "most tokens in one forward pass").shows_default();
  options.add("--kv-type", kv_type, kv_type_help().c_str()).not_empty();
  options.add("--kv-block-size", kv_block, "positions per block").shows_default();
  options
      .add("--kv-budget", kv_budget,
           "bytes of the page pool, such as 256MiB; 80%: what else is needed leaves so much "
           "of the device's free memory")
      .not_empty();
  options
      .add("--kv-policy", kv_policy,
           "what each layer keeps, such as sink:4+1020 or 0-3=full,*=h2o:512")
      .shows_default();
  options.add_flag("--kv-shadow", kv_shadow,
                   "statistics say what prefixes half, twice and four times the memory would find");
  options
      .add("--rope-scaling", rope_scaling,
           "none, linear, llama3 or yarn, in place of what the file says")
      .not_empty();
  options.add("--rope-factor", rope_factor, "by how much positions are stretched").not_empty();
  options.add("--rope-original", rope_original,
              "positions that the model was trained for before that");
  options.add("--isa", isa, isa_help().c_str()).not_empty();
  options.add_flag("--json", json, "one JSON object on stdout");
}

std::string kv_type_help() {
  return fmt::format("{} (default {}; {} with --precision reference)",
                     one_of(paddock::kv_type_names()), paddock::kv_type_name(paddock::KvType::kF16),
                     paddock::kv_type_name(paddock::KvType::kF32));
}

std::string isa_help() { return "force CPU kernels: " + one_of(paddock::isa_names()); }

double parse_factor(const std::string& text) {
  size_t end = 0;
  double factor = 0;
  try {
    factor = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  check(end > 0 && end == text.size() && factor >= 1 && std::isfinite(factor), "--rope-factor",
        text, "a number from 1 on");
  return factor;
}

std::shared_ptr<const paddock::Model> EngineArgs::load_model() const {
  return load_model(rope_factor.empty() ? 0 : parse_factor(rope_factor));
}

std::shared_ptr<const paddock::Model> EngineArgs::load_model(double factor) const {
  paddock::LoadOptions options;
  using paddock::RopeScaling;
  if (!rope_scaling.empty()) {
    bool known = false;
    for (const RopeScaling scaling :
         {RopeScaling::kNone, RopeScaling::kLinear, RopeScaling::kLlama3, RopeScaling::kYarn}) {
      if (rope_scaling != paddock::rope_scaling_name(scaling)) continue;
      options.rope.scaling = scaling;
      known = true;
    }
    check(known, "--rope-scaling", rope_scaling, "none, linear, llama3 or yarn");
  }
  options.rope.factor = factor;
  options.rope.original_context = rope_original;
  try {
    return paddock::Model::load(model, options);
  } catch (const paddock::Error& e) {
    if (e.code() != paddock::ErrorCode::kInvalidArgument) throw;
    // By the names that a reader of the command line knows.
    std::string text = e.what();
    for (const auto& [field, option] : {std::pair{"rope.scaling", "--rope-scaling"},
                                        {"rope.factor", "--rope-factor"},
                                        {"rope.original_context", "--rope-original"}}) {
      for (size_t at = text.find(field); at != std::string::npos; at = text.find(field, at)) {
        text.replace(at, std::string_view(field).size(), option);
      }
    }
    throw UsageError(text);
  }
}

paddock::EngineOptions EngineArgs::engine_options() const {
  paddock::EngineOptions o;
  check(precision == "fast" || precision == "reference", "--precision", precision,
        "fast or reference");
  o.threads = threads;
  o.device = device;
  o.precision = precision == "fast" ? paddock::Precision::kFast : paddock::Precision::kReference;
  o.context = context;
  o.batch_size = batch;
  o.isa = isa;
  o.kv.block_size = kv_block;
  o.kv.policy = kv_policy;
  if (!kv_type.empty()) {
    const std::vector<std::string> known = paddock::kv_type_names();
    check(std::find(known.begin(), known.end(), kv_type) != known.end(), "--kv-type", kv_type,
          one_of(known));
    o.kv.type = paddock::parse_kv_type(kv_type);
  }
  o.kv.shadow = kv_shadow;
  if (kv_budget.ends_with('%')) {
    o.kv.budget_share = parse_share(kv_budget);
  } else if (!kv_budget.empty()) {
    o.kv.budget_bytes = parse_size("--kv-budget", kv_budget, ", or 80%");
  }
  check_by([&] { o.validate(); }, {{"threads", "-t", std::to_string(threads)},
                                   {"context", "-c", std::to_string(context)},
                                   {"batch_size", "-b", std::to_string(batch)},
                                   {"kv.block_size", "--kv-block-size", std::to_string(kv_block)}});
  return o;
}

void SamplingArgs::add_to(Options& options) {
  options.add("--temp", temperature, "temperature; 0 is greedy").shows_default();
  options.add("--top-k", top_k, "0: off").shows_default();
  options.add("--top-p", top_p, "1: off").shows_default();
  options.add("--min-p", min_p, "0: off").shows_default();
  options.add("--repeat-penalty", repeat, "1: off").shows_default();
  options.add("--frequency-penalty", frequency, "0: off").shows_default();
  options.add("--presence-penalty", presence, "0: off").shows_default();
  options.add("--logit-bias", logit_bias, "ID=BIAS, may repeat");
  options.add("--seed", seed, "default: random, reported").not_empty();
}

paddock::SamplingOptions SamplingArgs::options() const {
  paddock::SamplingOptions o;
  o.temperature = static_cast<float>(temperature);
  o.top_k = top_k;
  o.top_p = static_cast<float>(top_p);
  o.min_p = static_cast<float>(min_p);
  o.repeat_penalty = static_cast<float>(repeat);
  o.frequency_penalty = static_cast<float>(frequency);
  o.presence_penalty = static_cast<float>(presence);
  // What is judged is what the sampler gets: a float, 0 or infinity where a number is beyond.
  check_by([&] { o.validate(std::numeric_limits<paddock::TokenId>::max()); },
           {{"temperature", "--temp", fmt::format("{}", temperature)},
            {"top_k", "--top-k", std::to_string(top_k)},
            {"top_p", "--top-p", fmt::format("{}", top_p)},
            {"min_p", "--min-p", fmt::format("{}", min_p)},
            {"repeat_penalty", "--repeat-penalty", fmt::format("{}", repeat)},
            {"frequency_penalty", "--frequency-penalty", fmt::format("{}", frequency)},
            {"presence_penalty", "--presence-penalty", fmt::format("{}", presence)}});
  for (const std::string& text : logit_bias) o.logit_bias.push_back(parse_bias(text));
  if (!seed.empty()) {
    const char* end = seed.data() + seed.size();
    const auto [parsed, error] = std::from_chars(seed.data(), end, o.seed);
    check(error == std::errc() && parsed == end, "--seed", seed,
          "from 0 to 18446744073709551615; leave it out for a random one");
  } else if (o.temperature > 0) {
    o.seed = std::random_device{}();
  }
  return o;
}

void SamplingArgs::report_seed(const paddock::SamplingOptions& chosen) const {
  if (seed.empty() && chosen.temperature > 0) note(fmt::format("seed: {}\n", chosen.seed));
}

}  // namespace cli
