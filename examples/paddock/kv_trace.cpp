#include "kv_trace.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace cli {

void TraceArgs::add_to(Options& options) {
  options
      .add("--kv-trace", file,
           "record what the cache and its requests do in this file, for 'paddock trace' and "
           "'paddock explain'")
      .output_file();
  options.add_flag("--trace-tokens", tokens, "with --kv-trace: the texts, too, not only hashes");
  options.add_flag("--trace-scores", scores,
                   "with --kv-trace: all blocks among which rules chose, not only those that left");
}

void TraceArgs::check() const {
  if (!file.empty()) return;
  if (tokens) throw UsageError("--trace-tokens: needs --kv-trace FILE");
  if (scores) throw UsageError("--trace-scores: needs --kv-trace FILE");
}

TraceFile::TraceFile(const TraceArgs& args, paddock::EngineOptions& options) : path_(args.file) {
  args.check();
  if (path_.empty()) return;
  file_ = std::fopen(path_.c_str(), "a");  // what it holds goes in begin()
  if (file_ == nullptr) {
    throw paddock::Error(
        paddock::ErrorCode::kIo,
        fmt::format("--kv-trace {}: cannot be written: {}", path_, std::strerror(errno)));
  }
  std::setvbuf(file_, nullptr, _IONBF, 0);  // whatever ends the process, steps are whole
  options.kv.trace.tokens = args.tokens;
  options.kv.trace.scores = args.scores;
  options.kv.trace.sink = [this](std::string_view bytes) {
    if (error_ == 0 && std::fwrite(bytes.data(), 1, bytes.size(), file_) < bytes.size()) {
      error_ = errno;
    }
  };
}

TraceFile::~TraceFile() {
  if (file_ != nullptr) std::fclose(file_);
}

void TraceFile::begin() {
  // A pipe or a device has nothing to cut off, and says so.
  if (file_ != nullptr && ftruncate(fileno(file_), 0) != 0 && errno != EINVAL) error_ = errno;
}

void TraceFile::check() const {
  if (error_ == 0) return;
  throw paddock::Error(paddock::ErrorCode::kIo,
                       fmt::format("--kv-trace {}: not everything could be written: {}", path_,
                                   std::strerror(error_)));
}

}  // namespace cli
