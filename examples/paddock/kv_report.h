// What the generating commands tell about the cache: --kv-stats, --kv-events, --watch.
#pragma once

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "common.h"

namespace cli {

struct KvReportArgs {
  bool stats = false, watch = false;
  std::string events;

  void add_to(Options& options);
};

/// Writes each removal as one line of JSON.
class EventFile {
 public:
  /// Hooks itself into `options` if a path is given; throws if the file cannot be written.
  EventFile(const std::string& path, paddock::EngineOptions& options);
  ~EventFile();
  /// Empties the file: once nothing can be refused any more, so that a wrong option costs nothing.
  void begin();
  /// Throws if something could not be written.
  void close();

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
  int error_ = 0;  // errno of the first write that failed
};

/// While it lives: occupancy per layer on stderr, ten times a second. On a terminal it redraws the
/// upper part of the screen and lets text scroll below; elsewhere it prints a line when something
/// changed.
class Watch {
 public:
  explicit Watch(const paddock::Engine& engine);
  ~Watch();

 private:
  void draw();
  void draw_line(const paddock::KvStats& stats);
  void draw_panel(const paddock::KvStats& stats);

  const paddock::Engine& engine_;
  bool terminal_;
  int rows_ = 24, columns_ = 80, panel_rows_ = 0;
  int64_t last_step_ = -1;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace cli
