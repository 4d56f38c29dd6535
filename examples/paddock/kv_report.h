// What the generating commands tell about the cache: --kv-stats, --kv-events, --watch.
#pragma once

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "common.h"
#include "kv_trace.h"

namespace cli {

struct KvReportArgs {
  bool stats = false, watch = false;
  std::string events;
  TraceArgs trace;

  void add_to(Options& options);
};

/// What --kv-stats prints: the table, and when and for whom budgets of elastic rules fell.
std::string stats_text(const paddock::Engine& engine);

/// Writes each removal, and each change of an elastic rule's budget, as one line of JSON: a fall
/// stands before what it removed.
class EventFile {
 public:
  /// Hooks itself into `options` if a path is given; throws if the file cannot be written.
  EventFile(const std::string& path, paddock::EngineOptions& options);
  ~EventFile();
  /// Empties the file: once nothing can be refused any more, so that a wrong option costs nothing.
  /// The engine must be there until close().
  void begin(const paddock::Engine& engine);
  /// Throws if something could not be written.
  void close();

 private:
  void write(const std::string& json);
  /// Budget changes and preemptions that came before a removal of this number.
  void write_changes(uint64_t number);

  std::string path_;
  std::FILE* file_ = nullptr;
  const paddock::Engine* engine_ = nullptr;
  int64_t next_change_ = 0, next_preemption_ = 0;
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
