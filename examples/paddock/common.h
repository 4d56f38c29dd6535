// What the subcommands share: options, errors with exit codes, files, interrupts.
#pragma once

#include <paddock/paddock.h>

#include <fstream>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "command_line.h"

namespace cli {

using Json = nlohmann::ordered_json;

/// What the library does where no option says otherwise.
inline const paddock::EngineOptions kEngineDefaults{};
inline const paddock::SamplingOptions kSamplingDefaults{};

/// The double that has a float's shortest text: 0.8 of 0.8F.
double as_written(float value);

/// Options of every command that runs a model.
struct EngineArgs {
  std::string model;
  int threads = kEngineDefaults.threads;
  std::string device = kEngineDefaults.device;
  std::string precision = "fast";
  int64_t context = kEngineDefaults.context;
  int batch = kEngineDefaults.batch_size;
  std::string kv_type;
  int kv_block = kEngineDefaults.kv.block_size;
  std::string kv_budget;
  std::string kv_policy = kEngineDefaults.kv.policy;
  bool kv_shadow = false;
  std::string isa;
  std::string rope_scaling;
  std::string rope_factor;
  int64_t rope_original = 0;
  bool json = false;

  /// `needs_model`: whether -m must be given.
  void add_to(Options& options, bool needs_model = true);
  std::shared_ptr<const paddock::Model> load_model() const;
  /// Likewise, with this --rope-factor; 0: none.
  std::shared_ptr<const paddock::Model> load_model(double factor) const;
  paddock::EngineOptions engine_options() const;
};

struct SamplingArgs {
  double temperature = as_written(kSamplingDefaults.temperature);
  int top_k = kSamplingDefaults.top_k;
  double top_p = as_written(kSamplingDefaults.top_p);
  double min_p = as_written(kSamplingDefaults.min_p);
  double repeat = as_written(kSamplingDefaults.repeat_penalty);
  double frequency = as_written(kSamplingDefaults.frequency_penalty);
  double presence = as_written(kSamplingDefaults.presence_penalty);
  std::vector<std::string> logit_bias;
  std::string seed;

  void add_to(Options& options);
  /// With a random seed if none was given and temperature is not 0.
  paddock::SamplingOptions options() const;
  /// Says the random seed on stderr, if there is one.
  void report_seed(const paddock::SamplingOptions& chosen) const;
};

/// Of --kv-type: what it takes, and its default.
std::string kv_type_help();
/// Help of --isa: what there is here.
std::string isa_help();
/// A value of --rope-factor, or one of several: a number from 1 on. UsageError.
double parse_factor(const std::string& text);
/// Makes an engine; trouble with an option's value is wrong usage. `sequences_option`: what the
/// command calls the number of sequences.
std::unique_ptr<paddock::Engine> make_engine(const std::shared_ptr<const paddock::Model>& model,
                                             const paddock::EngineOptions& options,
                                             const char* sequences_option = "--parallel");
/// So many seconds from now; 0: none.
std::optional<std::chrono::steady_clock::time_point> deadline_in(double seconds);

/// The whole file, byte for byte; "-" is stdin.
std::string read_file(const std::string& path);
/// Ids of `prompt`, or of `file` if it is not empty; an Error names which of them.
std::vector<paddock::TokenId> encode(const paddock::Tokenizer& tokenizer, const std::string& prompt,
                                     const std::string& file,
                                     const paddock::EncodeOptions& options);
/// A JSON array of token ids.
std::vector<paddock::TokenId> read_tokens(const std::string& path);
/// "1,2,3".
std::vector<paddock::TokenId> parse_tokens(const std::string& text);

/// A file that appears under its name only when it is complete. A device, a pipe or a link that is
/// there already is written into; "-" is stdout.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write(std::string_view bytes);
  void finish();

 private:
  [[noreturn]] void refuse() const;
  std::string path_, partial_;
  std::ofstream file_;
  bool done_ = false;
};

/// Writes to stdout; throws if it is closed or full.
void print(std::string_view text);
/// JSON and a line's end; bytes that are no UTF-8, as paths may hold them, become U+FFFD.
void print_json(const Json& json, int indent = -1);
/// Writes to stderr; what cannot be written is dropped.
void note(std::string_view text);
/// One line on stderr, whatever the values that it quotes hold.
void complain(std::string_view message);

/// From now on Ctrl-C and SIGTERM end the engine's work; a second one ends the process.
class InterruptGuard {
 public:
  explicit InterruptGuard(paddock::Engine& engine);
  /// Likewise, calling `cancel` from another thread.
  explicit InterruptGuard(std::function<void()> cancel);
  ~InterruptGuard();
  static bool interrupted();

 private:
  struct Watcher;
  std::unique_ptr<Watcher> watcher_;
};

bool stderr_is_terminal();
/// A line on a terminal's stderr that counts up; none elsewhere.
std::function<bool(double)> progress(const char* what);

// One per command: adds it to the tool's.
void add_generate(CommandLine& tool);
void add_chat(CommandLine& tool);
void add_tokenize(CommandLine& tool);
void add_logits(CommandLine& tool);
void add_perplexity(CommandLine& tool);
void add_inspect(CommandLine& tool);
void add_bench(CommandLine& tool);
void add_replay(CommandLine& tool);
void add_trace(CommandLine& tool);
void add_explain(CommandLine& tool);
void add_doctor(CommandLine& tool);
void add_plan(CommandLine& tool);
void add_advise(CommandLine& tool);

}  // namespace cli
