#include "log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "../log_to_spdlog.h"
#include "common.h"

namespace cli {
namespace {

std::shared_ptr<spdlog::logger> g_file;  // of errors, into --log-file
std::mutex g_mutex;
std::string g_failure;  // why the file is not complete

/// The message, as one line.
class OneLine final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const std::string text = one_line({message.payload.data(), message.payload.size()});
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<OneLine>();
  }
};

spdlog::sink_ptr with_pattern(spdlog::sink_ptr sink, const char* pattern) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<OneLine>('*').set_pattern(pattern);
  sink->set_formatter(std::move(formatter));
  return sink;
}

void remember_failure(const std::string& why) {
  const std::lock_guard lock(g_mutex);
  if (g_failure.empty()) g_failure = why;
}

std::shared_ptr<spdlog::logger> make_logger(const std::vector<spdlog::sink_ptr>& sinks,
                                            spdlog::level::level_enum level) {
  auto logger = std::make_shared<spdlog::logger>("paddock", sinks.begin(), sinks.end());
  logger->set_level(level);
  logger->flush_on(spdlog::level::trace);
  logger->set_error_handler(remember_failure);
  return logger;
}

spdlog::level::level_enum parse_level(const std::string& name) {
  for (const char* known : {"debug", "info", "warn", "off"}) {
    if (name == known) return spdlog::level::from_str(name);
  }
  throw UsageError(fmt::format("--log-level {}: must be debug, info, warn or off", name));
}

/// The sink would make missing folders too, and say less about what is wrong.
void check_writable(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "a");
  if (file == nullptr) {
    throw paddock::Error(
        paddock::ErrorCode::kIo,
        fmt::format("--log-file {}: cannot be written: {}", path, std::strerror(errno)));
  }
  std::fclose(file);
}

/// The bytes of the character at the start of `text`; 0 where it is a control character, C1's too,
/// or no UTF-8: what a terminal might obey.
size_t harmless_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return byte(0) >= ' ' && byte(0) != 0x7F ? 1 : 0;
  if (byte(0) < 0xC2 || byte(0) > 0xF4) return 0;
  const size_t n = byte(0) < 0xE0 ? 2 : byte(0) < 0xF0 ? 3 : 4;
  if (text.size() < n) return 0;
  uint32_t code = byte(0) & (0xFFU >> (n + 1));
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0xA0, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code >= kLeast[n] && code <= 0x10FFFF && !surrogate ? n : 0;
}

}  // namespace

void Log::add_to(Options& options) {
  options.add("--log-level", level_, "debug, info, warn or off").shows_default();
  options.add("--log-file", file_, "append what is logged to this file").output_file();
}

void Log::begin() {
  const spdlog::level::level_enum level = parse_level(level_);
  std::vector<spdlog::sink_ptr> sinks{
      with_pattern(std::make_shared<spdlog::sinks::stderr_sink_mt>(), "%n: %l: %*")};
  if (!file_.empty()) {
    check_writable(file_);
    sinks[0]->set_level(spdlog::level::warn);
    sinks.push_back(with_pattern(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file_),
                                 "%Y-%m-%d %H:%M:%S.%e %l: %*"));
    g_file = make_logger({sinks[1]}, spdlog::level::err);
  }
  log_to_spdlog(make_logger(sinks, level));
}

void Log::end() {
  const std::lock_guard lock(g_mutex);
  if (g_failure.empty()) return;
  throw paddock::Error(
      paddock::ErrorCode::kIo,
      fmt::format("--log-file {}: not everything could be written: {}", file_, g_failure));
}

void log_error(std::string_view message) {
  if (g_file != nullptr) g_file->error("{}", message);
}

std::string one_line(std::string_view text) {
  std::string line;
  while (!text.empty()) {
    const size_t n = harmless_bytes(text);
    if (n == 0) {
      line += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
    } else {
      line += text.substr(0, n);
    }
    text.remove_prefix(std::max<size_t>(1, n));
  }
  return line;
}

}  // namespace cli
