#include "quality_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

namespace cli {
namespace {

// Okabe and Ito's colours, which people of all kinds of sight tell apart, without the yellow.
constexpr const char* kColours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                    "#E69F00", "#56B4E9", "#000000", "#7F7F7F"};
constexpr size_t kShapes = 5;  // and eight colours: forty series before two look alike
constexpr double kPanelWidth = 360, kPanelHeight = 300, kTop = 56, kBottom = 52, kLeft = 56;
constexpr double kGap = 64, kLegend = 170, kLegendRow = 20;

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

/// A logarithmic axis: what it spans, where on the page, and its marks.
struct Axis {
  double low, high;   // of the values
  double begin, end;  // on the page
  std::vector<double> marks;

  double at(double value) const {
    return begin + (end - begin) * std::log(value / low) / std::log(high / low);
  }
};

Axis make_axis(std::vector<double> values, double begin, double end,
               const std::vector<std::vector<double>>& mantissas, double base) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const double margin = std::max(std::pow(*most / *least, 0.06), 1.03);
  Axis axis{*least / margin, *most * margin, begin, end, {}};
  for (const std::vector<double>& steps : mantissas) {
    axis.marks.clear();
    for (double scale = std::pow(base, std::floor(std::log(axis.low) / std::log(base)));
         scale <= axis.high; scale *= base) {
      for (const double step : steps) {
        const double mark = scale * step;
        if (mark >= axis.low && mark <= axis.high) axis.marks.push_back(mark);
      }
    }
    if (axis.marks.size() >= 3) break;
  }
  return axis;
}

std::string marker(size_t series, double x, double y) {
  const char* colour = kColours[series % std::size(kColours)];
  switch (series % kShapes) {
    case 0:
      return fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='4' fill='{}'/>\n", x, y, colour);
    case 1:
      return fmt::format("<rect x='{:.1f}' y='{:.1f}' width='7' height='7' fill='{}'/>\n", x - 3.5,
                         y - 3.5, colour);
    case 2:
      return fmt::format("<path d='M{:.1f} {:.1f}l5 8h-10z' fill='{}'/>\n", x, y - 5, colour);
    case 3:
      return fmt::format("<path d='M{:.1f} {:.1f}l5 5l-5 5l-5 -5z' fill='{}'/>\n", x, y - 5,
                         colour);
    default:
      return fmt::format(
          "<path d='M{:.1f} {:.1f}l8 8m0 -8l-8 8' fill='none' stroke='{}' stroke-width='2'/>\n",
          x - 4, y - 4, colour);
  }
}

std::string text(double x, double y, const char* anchor, const std::string& content,
                 const char* more = "") {
  return fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='{}'{}>{}</text>\n", x, y, anchor,
                     more, escape(content));
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

std::string panel(double left, const std::string& title, const Series& series,
                  const std::function<double(const PlotPoint&)>& value, const PlotPoint* baseline) {
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
  const double right = left + kPanelWidth;
  const double bottom = kTop + kPanelHeight;
  const Axis x = make_axis(xs, left, right, {{1}, {1, 1.25, 1.5, 1.75}, {1, 1.0625, 1.125}}, 2);
  const Axis y = make_axis(ys, bottom, kTop,
                           {{1},
                            {1, 2, 5},
                            {1, 1.5, 2, 3, 4, 5, 6, 8},
                            {1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4.5, 5, 7, 9}},
                           10);
  for (const double mark : x.marks) {
    out += fmt::format("<path d='M{0:.1f} {1:.1f}V{2:.1f}' stroke='#E3E3E3'/>\n", x.at(mark), kTop,
                       bottom);
    out += text(x.at(mark), bottom + 18, "middle", fmt::format("{:g}", mark));
  }
  for (const double mark : y.marks) {
    out += fmt::format("<path d='M{0:.1f} {1:.1f}H{2:.1f}' stroke='#E3E3E3'/>\n", left, y.at(mark),
                       right);
    out += text(left - 8, y.at(mark) + 4, "end", fmt::format("{:g}", mark));
  }
  out += fmt::format("<path d='M{0:.1f} {1:.1f}V{2:.1f}H{3:.1f}' fill='none' stroke='#444444'/>\n",
                     left, kTop, bottom, right);
  out += text((left + right) / 2, bottom + 40, "middle", "positions a query meets, mean");
  if (baseline != nullptr) {
    const double at = y.at(value(*baseline));
    out +=
        fmt::format("<path d='M{:.1f} {:.1f}H{:.1f}' stroke='#444444' stroke-dasharray='6 4'/>\n",
                    left, at, right);
  }
  for (size_t i = 0; i < series.size(); ++i) {
    std::string line, markers;
    for (const PlotPoint& point : series[i].second) {
      if (!(value(point) > 0)) continue;
      const double px = x.at(point.kept);
      const double py = y.at(value(point));
      line += fmt::format("{}{:.1f} {:.1f}", line.empty() ? "M" : "L", px, py);
      markers += marker(i, px, py);
    }
    if (line.empty()) continue;
    out += fmt::format("<path d='{}' fill='none' stroke='{}' stroke-width='1.6'/>\n", line,
                       kColours[i % std::size(kColours)]);
    out += markers;
  }
  return out;
}

}  // namespace

std::string rule_family(const std::string& spec) {
  std::string family;
  for (size_t begin = 0; begin <= spec.size();) {
    const size_t end = std::min(spec.find(',', begin), spec.size());
    const std::string part = spec.substr(begin, end - begin);
    const size_t options = std::min(part.find('@'), part.size());
    std::string head = part.substr(0, options);
    const size_t colon = head.rfind(':');
    if (colon != std::string::npos &&
        head.find_first_not_of("0123456789+", colon + 1) == std::string::npos) {
      head.resize(colon);
    }
    family += (begin > 0 ? "," : "") + head + part.substr(options);
    begin = end + 1;
  }
  return family;
}

std::string quality_plot(const PlotPoint& baseline, const std::vector<PlotPoint>& points) {
  const Series series = by_family(points);
  const double second = kLeft + kPanelWidth + kGap;
  const double legend = second + kPanelWidth + 28;
  const double width = legend + kLegend;
  const double rows = static_cast<double>(series.size()) + 1;
  const double height =
      std::max(kTop + kPanelHeight + kBottom, kTop + kLegendRow * rows + kLegendRow);
  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{0:.0f}' height='{1:.0f}' "
      "viewBox='0 0 {0:.0f} {1:.0f}' font-family='sans-serif' font-size='13' fill='#222222'>\n"
      "<rect width='100%' height='100%' fill='#FFFFFF'/>\n",
      width, height);
  out += panel(
      kLeft, "Perplexity", series, [](const PlotPoint& p) { return p.perplexity; }, &baseline);
  out += panel(
      second, "Mean KL from the baseline, nats", series, [](const PlotPoint& p) { return p.kl; },
      nullptr);
  double y = kTop + 8;
  out += fmt::format("<path d='M{:.1f} {:.1f}h24' stroke='#444444' stroke-dasharray='6 4'/>\n",
                     legend, y);
  out += text(legend + 32, y + 4, "start", baseline.rule);
  for (size_t i = 0; i < series.size(); ++i) {
    y += kLegendRow;
    out += fmt::format("<path d='M{:.1f} {:.1f}h24' stroke='{}' stroke-width='1.6'/>\n", legend, y,
                       kColours[i % std::size(kColours)]);
    out += marker(i, legend + 12, y);
    out += text(legend + 32, y + 4, "start", series[i].first);
  }
  return out + "</svg>\n";
}

}  // namespace cli
