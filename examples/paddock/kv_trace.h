// --kv-trace: a trace of what the cache does, written to a file while a command runs.
#pragma once

#include <cstdio>
#include <string>

#include "common.h"

namespace cli {

struct TraceArgs {
  std::string file;
  bool tokens = false, scores = false;

  void add_to(Options& options);
  /// Throws where an option lacks the file.
  void check() const;
};

/// The file; it outlives the engine, which writes the trace's end when it goes.
class TraceFile {
 public:
  /// Hooks itself into `options` if there is a file; throws if that cannot be written.
  TraceFile(const TraceArgs& args, paddock::EngineOptions& options);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;
  /// Empties the file: once nothing can be refused any more.
  void begin();
  /// Throws if something could not be written.
  void check() const;

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
  int error_ = 0;  // errno of the first write that failed
};

}  // namespace cli
