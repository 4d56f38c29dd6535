#include "quality_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "wording.h"

namespace cli {
namespace {

// Okabe and Ito's colours, which people of all kinds of sight tell apart, without the yellow, and
// three more.
constexpr const char* kColours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00",
                                    "#56B4E9", "#000000", "#7F7F7F", "#882255", "#8C6D00"};
// Around (0, 0). As many as colours: ten series differ in both, and a hundred in one or the other.
struct Marker {
  const char* path;
  bool filled;
};
constexpr Marker kMarkers[] = {{"M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", true},   // disc
                               {"M-3.5 -3.5h7v7h-7z", true},                    // square
                               {"M0 -5l5 8.5h-10z", true},                      // triangle
                               {"M0 -5l5 5l-5 5l-5 -5z", true},                 // diamond
                               {"M-4 -4l8 8m0 -8l-8 8", false},                 // cross
                               {"M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", false},  // ring
                               {"M0 5l5 -8.5h-10z", true},     // triangle on its tip
                               {"M-3.5 -3.5h7v7h-7z", false},  // frame
                               {"M-5 0h10m-5 -5v10", false},   // plus
                               {"M-4 -4.5h8l-8 9h8z", true}};  // hourglass
constexpr const char* kDashes[] = {"", "7 3", "2 2.5", "8 3 2 3"};
constexpr const char* kGrid = "#E3E3E3";
constexpr const char* kFrame = "#444444";
constexpr double kPanelWidth = 360, kPanelHeight = 300, kTop = 84, kBottom = 52, kLeft = 56;
constexpr double kGap = 64, kLegend = 170, kLegendRow = 20, kLetter = 7.5;

/// A logarithmic axis: what it spans, where on the page, and its marks.
struct Axis {
  double low, high;   // of the values
  double begin, end;  // on the page
  std::vector<double> marks;

  double at(double value) const {
    return begin + (end - begin) * std::log(value / low) / std::log(high / low);
  }
};

/// The multiples of a round step that lie on the axis: four or more.
std::vector<double> round_marks(const Axis& axis) {
  const double least = (axis.high - axis.low) / 8;
  const double ten = std::pow(10, std::floor(std::log10(least)));
  double step = 10 * ten;
  for (const double digit : {5, 2, 1}) {
    if (digit * ten >= least) step = digit * ten;
  }
  std::vector<double> marks;
  for (double k = std::ceil(axis.low / step); k * step <= axis.high; ++k) marks.push_back(k * step);
  return marks;
}

/// Powers of `base`, or these times `digits`, as long as three lie on the axis.
Axis make_axis(const std::vector<double>& values, double begin, double end, double base,
               const std::vector<double>& digits) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const double margin = std::max(std::pow(*most / *least, 0.06), 1.03);
  Axis axis{*least / margin, *most * margin, begin, end, {}};
  for (const std::vector<double>& steps : {std::vector<double>{1}, digits}) {
    axis.marks.clear();
    for (double scale = std::pow(base, std::floor(std::log(axis.low) / std::log(base)));
         scale <= axis.high; scale *= base) {
      for (const double step : steps) {
        const double mark = scale * step;
        if (mark >= axis.low && mark <= axis.high) axis.marks.push_back(mark);
      }
    }
    if (axis.marks.size() >= 3) return axis;
  }
  axis.marks = round_marks(axis);
  return axis;
}

const char* colour(size_t series) { return kColours[series % std::size(kColours)]; }

std::string marker(size_t series, double x, double y, const std::string& title) {
  const Marker& shape = kMarkers[(series + series / std::size(kColours)) % std::size(kMarkers)];
  return fmt::format(
      "<path transform='translate({:.1f} {:.1f})' d='{}' fill='{}' stroke='{}' "
      "stroke-width='{}'>{}</path>\n",
      x, y, shape.path, shape.filled ? colour(series) : "none", colour(series),
      shape.filled ? 0 : 1.8, title.empty() ? "" : "<title>" + escaped(title) + "</title>");
}

std::string line(size_t series, const std::string& path) {
  return fmt::format(
      "<path d='{}' fill='none' stroke='{}' stroke-width='1.6' stroke-dasharray='{}'/>\n", path,
      colour(series), kDashes[series % std::size(kDashes)]);
}

std::string text(double x, double y, const char* anchor, const std::string& content,
                 const char* more = "") {
  return fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='{}'{}>{}</text>\n", x, y, anchor,
                     more, escaped(content));
}

using Series = std::vector<std::pair<std::string, std::vector<PlotPoint>>>;

Series by_family(const std::vector<PlotPoint>& points) {
  Series series;
  for (const PlotPoint& point : points) {
    const std::string family = rule_family(point.rule);
    auto found = std::find_if(series.begin(), series.end(),
                              [&](const auto& one) { return one.first == family; });
    if (found == series.end()) found = series.insert(series.end(), {family, {}});
    found->second.push_back(point);
  }
  for (auto& [family, members] : series) {
    std::stable_sort(members.begin(), members.end(),
                     [](const PlotPoint& a, const PlotPoint& b) { return a.kept < b.kept; });
  }
  return series;
}

std::string axes(const Axis& x, const Axis& y) {
  std::string out;
  for (const double mark : x.marks) {
    out += fmt::format("<path d='M{0:.1f} {1:.1f}V{2:.1f}' stroke='{3}'/>\n", x.at(mark), y.begin,
                       y.end, kGrid);
    out += text(x.at(mark), y.begin + 18, "middle", fmt::format("{:g}", mark));
  }
  for (const double mark : y.marks) {
    out += fmt::format("<path d='M{0:.1f} {1:.1f}H{2:.1f}' stroke='{3}'/>\n", x.begin, y.at(mark),
                       x.end, kGrid);
    out += text(x.begin - 8, y.at(mark) + 4, "end", fmt::format("{:g}", mark));
  }
  out += fmt::format("<path d='M{0:.1f} {1:.1f}V{2:.1f}H{3:.1f}' fill='none' stroke='{4}'/>\n",
                     x.begin, y.end, y.begin, x.end, kFrame);
  return out + text((x.begin + x.end) / 2, y.begin + 40, "middle", "positions a query meets, mean");
}

/// Where something stands already.
class Occupied {
 public:
  struct Box {
    double left, top, right, bottom;
  };
  /// False, and nothing taken, where the box lies on another.
  bool take(const Box& box) {
    for (const Box& other : boxes_) {
      if (box.left < other.right && other.left < box.right && box.top < other.bottom &&
          other.top < box.bottom) {
        return false;
      }
    }
    boxes_.push_back(box);
    return true;
  }
  void mark(double x, double y) { boxes_.push_back({x - 5, y - 5, x + 5, y + 5}); }

 private:
  std::vector<Box> boxes_;
};

/// The numbers of a point's SPEC, above or below it, unless they would hide something.
std::string point_label(Occupied& occupied, double x, double y, const std::string& rule) {
  constexpr double kSize = 9, kWidth = 5.4;
  const std::string label = rule_numbers(rule);
  const double right = x + 6 + kWidth * static_cast<double>(label.size());
  for (const double bottom : {y - 5, y + 5 + kSize}) {
    if (!label.empty() && occupied.take({x + 6, bottom - kSize, right, bottom})) {
      return text(x + 6, bottom, "start", label, " font-size='9' fill='#555555'");
    }
  }
  return "";
}

/// A point's SPEC and its numbers, with as many digits as the table has.
std::string point_title(const PlotPoint& point) {
  return fmt::format("{}: {:.1f} positions kept, perplexity {:.3f}, KL {:.4f}", point.rule,
                     point.kept, point.perplexity, point.kl);
}

using Value = std::function<double(const PlotPoint&)>;

std::string curves(const Series& series, const Value& value, const Axis& x, const Axis& y) {
  std::string lines, markers, labels;
  Occupied occupied;
  const auto each = [&](const std::vector<PlotPoint>& points, const auto& visit) {
    for (const PlotPoint& point : points) {
      if (value(point) > 0) visit(point, x.at(point.kept), y.at(value(point)));
    }
  };
  for (size_t i = 0; i < series.size(); ++i) {
    std::string path;
    each(series[i].second, [&](const PlotPoint& point, double px, double py) {
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px, py);
      markers += marker(i, px, py, point_title(point));
      occupied.mark(px, py);
    });
    if (!path.empty()) lines += line(i, path);
  }
  for (const auto& [family, points] : series) {
    each(points, [&](const PlotPoint& point, double px, double py) {
      labels += point_label(occupied, px, py, point.rule);
    });
  }
  return lines + labels + markers;
}

std::string panel(double left, const std::string& title, const Series& series, const Value& value,
                  const PlotPoint* baseline) {
  std::vector<double> xs, ys;
  for (const auto& [family, members] : series) {
    for (const PlotPoint& point : members) {
      if (!(value(point) > 0)) continue;
      xs.push_back(point.kept);
      ys.push_back(value(point));
    }
  }
  std::string out = text(left, kTop - 14, "start", title, " font-weight='bold'");
  if (xs.empty()) return out + text(left, kTop + 20, "start", "nothing differs from the baseline");
  if (baseline != nullptr) ys.push_back(value(*baseline));
  const Axis x = make_axis(xs, left, left + kPanelWidth, 2, {1, 1.5});
  const Axis y = make_axis(ys, kTop + kPanelHeight, kTop, 10, {1, 2, 5});
  out += axes(x, y);
  if (baseline != nullptr) {
    out += fmt::format("<path d='M{:.1f} {:.1f}H{:.1f}' stroke='{}' stroke-dasharray='6 4'/>\n",
                       x.begin, y.at(value(*baseline)), x.end, kFrame);
  }
  return out + curves(series, value, x, y);
}

/// The parts of a SPEC: each rule's name with its layers, its numbers, and its options.
struct Part {
  std::string head, numbers, options;
};

std::vector<Part> split(const std::string& spec) {
  std::vector<Part> parts;
  for (size_t begin = 0; begin <= spec.size();) {
    const size_t end = std::min(spec.find(',', begin), spec.size());
    const std::string part = spec.substr(begin, end - begin);
    const size_t options = std::min(part.find('@'), part.size());
    std::string head = part.substr(0, options);
    std::string numbers;
    const size_t colon = head.rfind(':');
    if (colon != std::string::npos &&
        head.find_first_not_of("0123456789+", colon + 1) == std::string::npos) {
      numbers = head.substr(colon + 1);
      head.resize(colon);
    }
    parts.push_back({head, numbers, part.substr(options)});
    begin = end + 1;
  }
  return parts;
}

std::string heading(const PlotCaption& caption) {
  return text(kLeft, 24, "start", caption.model + " on " + caption.text,
              " font-size='15' font-weight='bold'") +
         text(kLeft, 44, "start", caption.budget);
}

double legend_width(const PlotPoint& baseline, const Series& series) {
  size_t letters = baseline.rule.size();
  for (const auto& [family, members] : series) letters = std::max(letters, family.size());
  return std::max(kLegend, 48 + kLetter * static_cast<double>(letters));
}

}  // namespace

std::string rule_family(const std::string& spec) {
  std::string family;
  for (const Part& part : split(spec)) {
    family += (family.empty() ? "" : ",") + part.head + part.options;
  }
  return family;
}

std::string rule_numbers(const std::string& spec) {
  std::string numbers;
  for (const Part& part : split(spec)) {
    if (!part.numbers.empty()) numbers += (numbers.empty() ? "" : ",") + part.numbers;
  }
  return numbers;
}

std::string quality_plot(const PlotCaption& caption, const PlotPoint& baseline,
                         const std::vector<PlotPoint>& points) {
  const Series series = by_family(points);
  const double second = kLeft + kPanelWidth + kGap;
  const double legend = second + kPanelWidth + 28;
  const double width = legend + legend_width(baseline, series);
  const double rows = static_cast<double>(series.size()) + 1;
  const double height =
      std::max(kTop + kPanelHeight + kBottom, kTop + kLegendRow * rows + kLegendRow);
  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{0:.0f}' height='{1:.0f}' "
      "viewBox='0 0 {0:.0f} {1:.0f}' font-family='sans-serif' font-size='13' fill='#222222'>\n"
      "<rect width='100%' height='100%' fill='#FFFFFF'/>\n",
      width, height);
  out += heading(caption);
  out += panel(
      kLeft, "Perplexity", series, [](const PlotPoint& p) { return p.perplexity; }, &baseline);
  out += panel(
      second, "Mean KL from the baseline, nats", series, [](const PlotPoint& p) { return p.kl; },
      nullptr);
  double y = kTop + 8;
  out += fmt::format("<path d='M{:.1f} {:.1f}h34' stroke='{}' stroke-dasharray='6 4'/>\n", legend,
                     y, kFrame);
  out += text(legend + 42, y + 4, "start", baseline.rule);
  for (size_t i = 0; i < series.size(); ++i) {
    y += kLegendRow;
    out += line(i, fmt::format("M{:.1f} {:.1f}h34", legend, y)) + marker(i, legend + 17, y, "");
    out += text(legend + 42, y + 4, "start", series[i].first);
  }
  return out + "</svg>\n";
}

}  // namespace cli
