#include "common.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "advice.h"
#include "log.h"
#include "wording.h"

namespace cli {
namespace {

std::atomic<int> g_signals{0};

void on_signal(int) {
  if (g_signals.fetch_add(1) > 0) _exit(130);
}

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
  options.add("--isa", isa, "force CPU kernels: portable, avx2, avx512, avx512_bf16").not_empty();
  options.add_flag("--json", json, "one JSON object on stdout");
}

std::string kv_type_help() {
  return fmt::format("{} (default {}; {} with --precision reference)",
                     one_of(paddock::kv_type_names()), paddock::kv_type_name(paddock::KvType::kF16),
                     paddock::kv_type_name(paddock::KvType::kF32));
}

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

std::unique_ptr<paddock::Engine> make_engine(const std::shared_ptr<const paddock::Model>& model,
                                             const paddock::EngineOptions& options,
                                             const char* sequences_option) {
  try {
    return std::make_unique<paddock::Engine>(model, options);
  } catch (const paddock::Error& e) {
    const std::string text = describe(e, "--kv-policy", sequences_option);
    if (e.code() == paddock::ErrorCode::kInvalidArgument) throw UsageError(text);
    throw paddock::Error(e.code(), text);
  }
}

std::optional<std::chrono::steady_clock::time_point> deadline_in(double seconds) {
  using Clock = std::chrono::steady_clock;
  if (seconds == 0) return std::nullopt;
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::string read_file(const std::string& path) {
  const auto refuse = [&](const char* why) {
    throw paddock::Error(paddock::ErrorCode::kIo, fmt::format("cannot read '{}': {}", path, why));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      path == "-" ? stdin : std::fopen(path.c_str(), "rb"), &std::fclose);
  if (file == nullptr) refuse(std::strerror(errno));
  constexpr size_t kMost = INT32_MAX;  // bytes that a tokenizer takes
  std::string text;
  char part[65536];
  while (const size_t n = std::fread(part, 1, sizeof(part), file.get())) {
    text.append(part, n);
    if (text.size() > kMost) refuse("more than 2147483647 bytes");
  }
  if (std::ferror(file.get()) != 0) refuse(std::strerror(errno));
  return text;
}

std::vector<paddock::TokenId> encode(const paddock::Tokenizer& tokenizer, const std::string& prompt,
                                     const std::string& file,
                                     const paddock::EncodeOptions& options) {
  const std::string text = file.empty() ? prompt : read_file(file);
  try {
    return tokenizer.encode(text, options);
  } catch (const paddock::Error& e) {
    const std::string source = file.empty() ? "the prompt" : "'" + file + "'";
    throw paddock::Error(e.code(), source + ": " + e.what());
  }
}

std::vector<paddock::TokenId> read_tokens(const std::string& path) {
  const Json json = Json::parse(read_file(path), nullptr, false);
  const auto refuse = [&](const std::string& why) {
    throw paddock::Error(paddock::ErrorCode::kInvalidArgument,
                         fmt::format("--tokens-file {}: {}", path, why));
  };
  if (!json.is_array()) refuse("must hold a JSON array of token ids");
  std::vector<paddock::TokenId> tokens;
  for (const Json& id : json) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      refuse(fmt::format("'{}' is not a token id", id.dump()));
    }
    tokens.push_back(id.get<int32_t>());
  }
  return tokens;
}

std::vector<paddock::TokenId> parse_tokens(const std::string& text) {
  std::vector<paddock::TokenId> tokens;
  const char* at = text.data();
  const char* end = at + text.size();
  for (;;) {
    paddock::TokenId id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0 || (next != end && *next != ',')) {
      throw UsageError(
          fmt::format("--tokens {}: must be ids joined by commas, such as 1,2,3", text));
    }
    tokens.push_back(id);
    if (next == end) return tokens;
    at = next + 1;
  }
}

OutputFile::OutputFile(const std::string& path) : path_(path), partial_(path + ".partial") {
  if (path == "-") return;
  std::error_code ignored;
  const auto status = std::filesystem::symlink_status(path, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) partial_ = path;
  file_.open(partial_, std::ios::binary | std::ios::trunc);
  if (!file_) refuse();
}

OutputFile::~OutputFile() {
  std::error_code ignored;
  if (!done_ && path_ != "-" && partial_ != path_) std::filesystem::remove(partial_, ignored);
}

void OutputFile::write(std::string_view bytes) {
  if (path_ == "-") return print(bytes);
  file_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file_) refuse();
}

void OutputFile::finish() {
  if (path_ == "-") return;
  file_.close();
  if (!file_) refuse();
  std::error_code error;
  if (partial_ != path_) std::filesystem::rename(partial_, path_, error);
  if (error) refuse();
  done_ = true;
}

void OutputFile::refuse() const {
  throw paddock::Error(paddock::ErrorCode::kIo,
                       fmt::format("cannot write '{}': {}", path_, std::strerror(errno)));
}

void print(std::string_view text) {
  if (fwrite(text.data(), 1, text.size(), stdout) != text.size() || fflush(stdout) != 0) {
    throw paddock::Error(paddock::ErrorCode::kIo,
                         fmt::format("cannot write to stdout: {}", std::strerror(errno)));
  }
}

void print_json(const Json& json, int indent) {
  print(json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n");
}

void note(std::string_view text) {
  [[maybe_unused]] const size_t written = fwrite(text.data(), 1, text.size(), stderr);
}

void complain(std::string_view message) {
  note("paddock: " + one_line(message) + "\n");
  constexpr std::string_view kPrefix = "error: ";
  if (message.starts_with(kPrefix)) message.remove_prefix(kPrefix.size());
  log_error(message);
}

struct InterruptGuard::Watcher {
  explicit Watcher(std::function<void()> cancel)
      : thread([this, cancel = std::move(cancel)] {
          while (!done) {
            if (g_signals > 0) cancel();
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
          }
        }) {}
  ~Watcher() {
    done = true;
    thread.join();
  }
  std::atomic<bool> done{false};
  std::thread thread;
};

InterruptGuard::InterruptGuard(paddock::Engine& engine)
    : InterruptGuard([&engine] { engine.cancel(); }) {}

InterruptGuard::InterruptGuard(std::function<void()> cancel)
    : watcher_(std::make_unique<Watcher>(std::move(cancel))) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

InterruptGuard::~InterruptGuard() = default;

bool InterruptGuard::interrupted() { return g_signals > 0; }

bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }

std::function<bool(double)> progress(const char* what) {
  if (!stderr_is_terminal()) return {};
  return [what, shown = -1](double fraction) mutable {
    const int percent = static_cast<int>(fraction * 100);
    if (percent != shown)
      note(fmt::format("\r{}: {:3} %{}", what, percent, percent == 100 ? "\n" : ""));
    shown = percent;
    return true;
  };
}

}  // namespace cli
