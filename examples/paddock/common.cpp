#include "common.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
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

}  // namespace

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
