#include "kv_report.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace cli {

void KvReportArgs::add_to(Options& options) {
  options.add_flag("--kv-stats", stats, "print the per-layer table on stderr");
  options
      .add("--kv-events", events,
           "write every removal, budget change and preemption to this file, as JSON lines")
      .output_file();
  options.add_flag("--watch", watch, "show occupancy per layer on stderr while it runs");
  trace.add_to(options);
}

std::string stats_text(const paddock::Engine& engine) {
  constexpr size_t kMostRows = 16;
  std::string text = paddock::to_table(engine.kv_stats());
  const std::vector<paddock::KvBudgetChange> changes = engine.kv_budget_changes();
  if (changes.empty()) return text;
  const auto budget = [](int32_t positions) {
    return positions == paddock::kUnlimited ? "-" : std::to_string(positions);
  };
  text += fmt::format("{:>10} {:>9} {:>9} {:>7} {:>7} {:>7}  {}\n", "budgets at", "sequence",
                      "positions", "before", "after", "pages", "for");
  for (size_t i = 0; i < std::min(changes.size(), kMostRows); ++i) {
    const paddock::KvBudgetChange& c = changes[i];
    const std::string whom = c.after == paddock::kUnlimited ? "its next turn"
                             : c.request == 0               ? "text that is fed"
                                                            : fmt::format("request {}", c.request);
    text +=
        fmt::format("{:>10} {:>9} {:>9} {:>7} {:>7} {:>7}  {}\n", fmt::format("step {}", c.step),
                    c.sequence, c.length, budget(c.before), budget(c.after), c.pages, whom);
  }
  if (changes.size() > kMostRows) {
    text += fmt::format("{:>10} changes more\n", changes.size() - kMostRows);
  }
  return text;
}

EventFile::EventFile(const std::string& path, paddock::EngineOptions& options) : path_(path) {
  if (path.empty()) return;
  file_ = std::fopen(path.c_str(), "a");  // what it holds goes in begin()
  if (file_ == nullptr) {
    throw paddock::Error(
        paddock::ErrorCode::kIo,
        fmt::format("--kv-events {}: cannot be written: {}", path, std::strerror(errno)));
  }
  // Whole lines at once: whatever ends the process, the file ends with a line.
  std::setvbuf(file_, nullptr, _IONBF, 0);
  options.kv.on_event = [this](const paddock::KvEvent& event) {
    write_changes(event.number);
    write(paddock::to_json(event));
  };
}

void EventFile::write(const std::string& json) {
  const std::string line = json + "\n";
  if (error_ == 0 && std::fwrite(line.data(), 1, line.size(), file_) < line.size()) {
    error_ = errno;
  }
}

void EventFile::write_changes(uint64_t number) {
  if (engine_ == nullptr) return;
  for (const paddock::KvBudgetChange& change : engine_->kv_budget_changes(next_change_)) {
    if (change.first_event > number) break;
    write(paddock::to_json(change));
    next_change_ = change.number + 1;
  }
  for (const paddock::KvPreemption& preemption : engine_->kv_preemptions(next_preemption_)) {
    if (preemption.first_event > number) break;
    write(paddock::to_json(preemption));
    next_preemption_ = preemption.number + 1;
  }
}

void EventFile::begin(const paddock::Engine& engine) {
  engine_ = &engine;
  // A pipe or a device has nothing to cut off, and says so.
  if (file_ != nullptr && ftruncate(fileno(file_), 0) != 0 && errno != EINVAL) error_ = errno;
}

EventFile::~EventFile() {
  if (file_ != nullptr) std::fclose(file_);
}

void EventFile::close() {
  if (file_ == nullptr) return;
  write_changes(UINT64_MAX);  // lifts and parks that no removal followed
  engine_ = nullptr;
  if (std::fclose(file_) != 0 && error_ == 0) error_ = errno;
  file_ = nullptr;
  if (error_ != 0) {
    throw paddock::Error(paddock::ErrorCode::kIo,
                         fmt::format("--kv-events {}: not everything could be written: {}", path_,
                                     std::strerror(error_)));
  }
}

Watch::Watch(const paddock::Engine& engine) : engine_(engine), terminal_(stderr_is_terminal()) {
  if (terminal_) {
    winsize size{};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
      rows_ = size.ws_row;
      columns_ = size.ws_col;
    }
    const int per_row = std::max(1, columns_ / 26);
    const int layers = static_cast<int>(engine.kv_stats().layers.size());
    panel_rows_ = std::min(1 + (layers + per_row - 1) / per_row, std::max(2, rows_ / 2));
    // Clear, keep the panel's rows out of what scrolls, and write text below them.
    note(fmt::format("\033[2J\033[{};{}r\033[{};1H", panel_rows_ + 2, rows_, panel_rows_ + 2));
  }
  thread_ = std::thread([this] {
    while (!done_) {
      draw();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
}

Watch::~Watch() {
  done_ = true;
  thread_.join();
  draw();
  if (terminal_) note("\0337\033[r\0338");
}

void Watch::draw() {
  const paddock::KvStats stats = engine_.kv_stats();
  if (stats.steps == last_step_) return;
  last_step_ = stats.steps;
  if (terminal_) {
    draw_panel(stats);
  } else {
    draw_line(stats);
  }
}

void Watch::draw_line(const paddock::KvStats& stats) {
  std::string pages;
  for (const paddock::KvLayerStats& layer : stats.layers) {
    pages += fmt::format(" {}", layer.pages_active);
  }
  note(fmt::format("step {}: {} of {} pages, {} tokens written; pages by layer:{}\n", stats.steps,
                   stats.total.pages_active, stats.pool_pages, stats.tokens_written, pages));
}

/// A bar is full where a layer holds an equal share of the pool; '+' says that it holds more, which
/// it may, since any layer may use any page.
void Watch::draw_panel(const paddock::KvStats& stats) {
  constexpr int64_t kBar = 10;
  const int64_t pool = std::max<int64_t>(1, stats.pool_pages);
  std::string text = fmt::format(
      "\0337\033[1;1H\033[K step {}  {} of {} pages, {} %  {} tokens written", stats.steps,
      stats.total.pages_active, pool, stats.total.pages_active * 100 / pool, stats.tokens_written);
  const int per_row = std::max(1, columns_ / 26);
  for (size_t i = 0; i < stats.layers.size(); ++i) {
    const int row = 2 + static_cast<int>(i) / per_row;
    if (row > panel_rows_) break;
    const paddock::KvLayerStats& layer = stats.layers[i];
    const auto layers = static_cast<int64_t>(stats.layers.size());
    const int64_t wanted = (layer.pages_active * kBar * layers + pool - 1) / pool;
    const int64_t filled = std::min(wanted, kBar);
    if (i % static_cast<size_t>(per_row) == 0) text += fmt::format("\033[{};1H\033[K", row);
    text += fmt::format(" {:>3} {:#<{}}{:.<{}}{} {:>6}  ", layer.layer, "", filled, "",
                        kBar - filled, wanted > kBar ? '+' : ' ', layer.tokens_resident);
  }
  note(fmt::format("{}\0338", text));
}

}  // namespace cli
