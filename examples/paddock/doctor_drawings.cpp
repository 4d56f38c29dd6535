#include "doctor_drawings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "wording.h"

namespace cli {
namespace {

using paddock::BlockFate;
using paddock::Diagnosis;
using paddock::DoctorSample;
using paddock::RemovalReason;

constexpr double kWidth = 480, kLeft = 44, kRight = 472;
constexpr int kColumns = 200;  // most of a grid
constexpr int kLevels = 10;    // of shade

std::string text(double x, double y, const char* anchor, const std::string& content) {
  return fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='{}'>{}</text>\n", x, y, anchor,
                     escaped(content));
}

std::string svg(double height, const std::string& label, const std::string& content) {
  return fmt::format("<svg viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='{}'>\n{}</svg>\n",
                     kWidth, height, escaped(label), content);
}

/// Rectangles of a grid of one class, those in a row next to each other as one.
class Grid {
 public:
  Grid(double top, double row_height, int columns)
      : top_(top), row_(row_height), column_((kRight - kLeft) / std::max(1, columns)) {}
  void put(int row, int column, const std::string& kind) {
    if (row == last_row_ && column == end_ && kind == kind_) {
      ++end_;
      return;
    }
    close();
    last_row_ = row;
    begin_ = column;
    end_ = column + 1;
    kind_ = kind;
  }
  std::string drawn() {
    close();
    std::string out;
    for (const auto& [kind, path] : paths_) {
      out += fmt::format("<path class='{}' d='{}'/>\n", kind, path);
    }
    return out;
  }

 private:
  void close() {
    if (end_ > begin_ && !kind_.empty()) {
      paths_[kind_] +=
          fmt::format("M{:.1f} {:.1f}h{:.1f}v{:.1f}h-{:.1f}z", kLeft + column_ * begin_,
                      top_ + row_ * last_row_, column_ * (end_ - begin_), row_ * 0.9,
                      column_ * (end_ - begin_));
    }
    begin_ = end_ = 0;
  }
  double top_, row_, column_;
  int last_row_ = -1, begin_ = 0, end_ = 0;
  std::string kind_;
  std::map<std::string, std::string> paths_;
};

/// Labels of rows: the first, the last, and some between.
std::string layer_labels(double top, double row, int layers) {
  std::string out;
  const int every = std::max(1, (layers + 5) / 6);
  for (int i = 0; i < layers; i += every) {
    out += text(kLeft - 6, top + row * i + std::min(row, 10.0), "end", std::to_string(i));
  }
  return out;
}

double row_height(int layers) { return std::clamp(240.0 / std::max(1, layers), 7.0, 24.0); }

std::string pool_line(const Diagnosis& d, double top, double bottom) {
  int64_t pool = std::max<int64_t>(1, d.header.pool_pages);
  for (const DoctorSample& s : d.samples) pool = std::max(pool, s.pages_active);
  std::string path;
  const double last = static_cast<double>(std::max<size_t>(2, d.samples.size()) - 1);
  for (size_t i = 0; i < d.samples.size(); ++i) {
    const double share = static_cast<double>(d.samples[i].pages_active) / static_cast<double>(pool);
    path += fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L",
                        kLeft + (kRight - kLeft) * static_cast<double>(i) / last,
                        bottom - (bottom - top) * share);
  }
  return fmt::format(
             "<path class='grid' d='M{0} {1}H{2}M{0} {3}H{2}'/>\n<path class='line' d='{4}'/>\n",
             kLeft, top, kRight, bottom, path) +
         text(kLeft - 6, top + 9, "end", std::to_string(pool)) +
         text(kLeft - 6, bottom, "end", "0") + text(kLeft, top - 6, "start", "pages in use");
}

std::string fate_class(BlockFate fate) {
  switch (fate) {
    case BlockFate::kResident:
      return "here";
    case BlockFate::kWindow:
      return "window";
    case BlockFate::kTrimmed:
      return "trim";
    case BlockFate::kTaken:
      return "taken";
    case BlockFate::kAbsent:
      return "";
  }
  return "";
}

/// Of the style sheet, for bars of blocks that left so.
const char* reason_class(RemovalReason reason) {
  switch (reason) {
    case RemovalReason::kCapacity:
      return "capacity";
    case RemovalReason::kWindow:
      return "window";
    case RemovalReason::kPolicyTrim:
      return "trim";
    case RemovalReason::kSequenceEnd:
      return "here";
    case RemovalReason::kPreempt:
      return "preempt";
    case RemovalReason::kUser:
      return "taken";
  }
  return "";
}

/// Bars over powers of two of steps.
std::string bars(double top, const paddock::StepHistogram& histogram, const std::string& kind,
                 const std::string& name) {
  constexpr double kHeight = 70;
  int64_t most = 1, all = 0;
  for (const int64_t n : histogram) most = std::max(most, n);
  for (const int64_t n : histogram) all += n;
  const double width =
      (kRight - kLeft) / static_cast<double>(std::max<size_t>(8, histogram.size()));
  std::string out = text(kLeft, top - 4, "start", fmt::format("{}: {} blocks", name, all));
  for (size_t i = 0; i < histogram.size(); ++i) {
    const double height = kHeight * static_cast<double>(histogram[i]) / static_cast<double>(most);
    const double x = kLeft + width * static_cast<double>(i);
    if (histogram[i] > 0) {
      out += fmt::format(
          "<rect class='{}' x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}'><title>{}"
          "</title></rect>\n",
          kind, x + 1, top + kHeight - height, width - 2, height, histogram[i]);
    }
    out += text(x + width / 2, top + kHeight + 13, "middle",
                std::to_string(i == 0 ? 0 : int64_t{1} << (i - 1)));
  }
  return out + fmt::format("<path class='grid' d='M{} {}H{}'/>\n", kLeft, top + kHeight, kRight);
}

}  // namespace

std::string occupancy_drawing(const Diagnosis& d) {
  const int layers = d.header.n_layers;
  const double row = row_height(layers), top = 110;
  const int samples = static_cast<int>(d.samples.size());
  const int columns = std::min(kColumns, std::max(1, samples));
  int64_t most = 1;
  for (const DoctorSample& s : d.samples) {
    for (const int64_t n : s.resident) most = std::max(most, n);
  }
  Grid shades(top, row, columns), marks(top, row, columns);
  for (int layer = 0; layer < layers; ++layer) {
    const auto i = static_cast<size_t>(layer);
    for (int column = 0; column < columns && samples > 0; ++column) {
      const int first = column * samples / columns, end = (column + 1) * samples / columns;
      int64_t held = 0, left = 0;
      for (int s = first; s < end; ++s) {
        held = std::max(held, d.samples[static_cast<size_t>(s)].resident.at(i));
        left += d.samples[static_cast<size_t>(s)].left.at(i);
      }
      const int64_t level = (held * kLevels + most - 1) / most;
      shades.put(layer, column, level == 0 ? "" : fmt::format("shade s{}", level));
      marks.put(layer, column, left > 0 ? "mark" : "");
    }
  }
  const double bottom = top + row * layers;
  std::string out =
      pool_line(d, 22, 82) +
      text(kLeft, top - 6, "start", fmt::format("positions in each layer, at most {}", most));
  out += shades.drawn() + marks.drawn() + layer_labels(top, row, layers);
  out += text(kLeft, bottom + 16, "start", "step 1") +
         text(kRight, bottom + 16, "end",
              fmt::format("step {}", samples == 0 ? 0 : d.samples.back().step + 1));
  return svg(bottom + 24, "pages in use and positions in each layer over the steps", out);
}

std::string map_drawing(const Diagnosis& d) {
  const int layers = static_cast<int>(d.map.size());
  const double row = row_height(layers), top = 8;
  size_t blocks = 0;
  for (const auto& layer : d.map) blocks = std::max(blocks, layer.size());
  const int columns = static_cast<int>(std::min<size_t>(kColumns, std::max<size_t>(1, blocks)));
  Grid grid(top, row, columns);
  for (int layer = 0; layer < layers; ++layer) {
    const std::vector<BlockFate>& fates = d.map[static_cast<size_t>(layer)];
    for (int column = 0; column < columns; ++column) {
      const size_t first = static_cast<size_t>(column) * blocks / static_cast<size_t>(columns);
      const size_t end = static_cast<size_t>(column + 1) * blocks / static_cast<size_t>(columns);
      std::array<int, static_cast<size_t>(BlockFate::kTaken) + 1> counts{};
      for (size_t i = first; i < end && i < fates.size(); ++i) {
        ++counts.at(static_cast<size_t>(fates[i]));
      }
      const auto most = std::max_element(counts.begin(), counts.end());
      grid.put(layer, column,
               *most == 0 ? "" : fate_class(static_cast<BlockFate>(most - counts.begin())));
    }
  }
  const double bottom = top + row * layers;
  return svg(bottom + 24, "what became of each block of the longest text in each layer",
             grid.drawn() + layer_labels(top, row, layers) +
                 text(kLeft, bottom + 16, "start", "position 0") +
                 text(kRight, bottom + 16, "end", fmt::format("position {}", d.map_length - 1)));
}

std::string lives_drawing(const Diagnosis& d) {
  std::string out;
  double top = 20;
  for (const auto& [reason, histogram] : d.lives) {
    out += bars(top, histogram, reason_class(reason), paddock::removal_reason_name(reason));
    top += 116;
  }
  if (out.empty()) return out;
  return svg(top - 20, "ages of blocks that left, in steps", out);
}

std::string gaps_drawing(const Diagnosis& d) {
  if (d.reuse_gaps.empty()) return "";
  return svg(110, "steps until a text's block came again",
             bars(20, d.reuse_gaps, "here", "came again"));
}

std::string latency_drawing(const Diagnosis& d) {
  constexpr double kTop = 22, kBottom = 200;
  double slowest = 0;
  for (const DoctorSample& s : d.samples) slowest = std::max(slowest, s.step_seconds);
  if (slowest <= 0) return "";
  const auto pool = static_cast<double>(std::max<int64_t>(1, d.header.pool_pages));
  std::string out =
      fmt::format("<path class='grid' d='M{} {}V{}H{}'/>\n", kLeft, kTop, kBottom, kRight);
  for (const DoctorSample& s : d.samples) {
    const double x = std::min(1.0, static_cast<double>(s.pages_active) / pool);
    out += fmt::format("<circle class='dot' cx='{:.1f}' cy='{:.1f}' r='2.2'/>\n",
                       kLeft + (kRight - kLeft) * x,
                       kBottom - (kBottom - kTop) * s.step_seconds / slowest);
  }
  out += text(kLeft, kTop - 8, "start", "ms of a step") +
         text(kLeft - 6, kTop + 9, "end", fmt::format("{:.3g}", slowest * 1e3)) +
         text(kLeft - 6, kBottom, "end", "0") + text(kLeft, kBottom + 16, "start", "0 %") +
         text((kLeft + kRight) / 2, kBottom + 16, "middle", "of the pool in use") +
         text(kRight, kBottom + 16, "end", "100 %");
  return svg(kBottom + 24, "time of steps against the share of the pool in use", out);
}

}  // namespace cli
