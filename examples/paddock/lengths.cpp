#include "lengths.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace cli {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

/// A number and what follows it.
std::optional<std::pair<double, std::string>> parse_number(const std::string& text) {
  try {
    size_t end = 0;
    const double number = std::stod(text, &end);
    return std::pair{number, text.substr(end)};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

/// One length under one factor.
struct Cell {
  double perplexity = 0;  // of all its tokens but the first
  double end = 0;         // of its second half alone, which sees most
};

struct Column {
  double factor = 0;    // 0: the file's
  int64_t context = 0;  // that the model then has
  std::vector<Cell> cells;
};

Column measure(double factor, const paddock::Model& model,
               const std::vector<paddock::TokenId>& tokens, const std::vector<int64_t>& lengths,
               paddock::QualityMeter& meter) {
  std::vector<double> sums(tokens.size() + 1, 0);  // of -log p of the tokens before each position
  paddock::CompareOptions options;
  options.on_position = [&](int64_t at, std::span<const paddock::PositionQuality> rules) {
    sums[static_cast<size_t>(at) + 1] = sums[static_cast<size_t>(at)] + rules[0].nll;
    return true;
  };
  meter.compare(tokens, options);
  Column column{factor, model.info().context_length, {}};
  for (const int64_t n : lengths) {
    const auto mean = [&](int64_t first) {
      const double sum = sums[static_cast<size_t>(n)] - sums[static_cast<size_t>(first)];
      return std::exp(sum / static_cast<double>(n - first));
    };
    column.cells.push_back({mean(1), mean(n / 2)});
  }
  return column;
}

/// Bytes of the pool that one sequence of so many positions takes.
uint64_t kv_bytes(const std::shared_ptr<const paddock::Model>& model,
                  paddock::EngineOptions options, int64_t positions) {
  options.context = positions;
  options.batch_size = static_cast<int32_t>(std::min<int64_t>(options.batch_size, positions));
  options.kv.budget_bytes = 0;
  options.kv.budget_share = 0;
  return make_engine(model, options)->options().kv.budget_bytes;
}

std::string table(const std::vector<int64_t>& lengths, const std::vector<uint64_t>& bytes,
                  const std::vector<Column>& columns) {
  std::string out = "| positions | KV bytes |";
  for (const Column& c : columns) {
    out += fmt::format(" {:>17} |",
                       c.factor > 0 ? fmt::format("factor {:g}", c.factor) : "the file's factor");
  }
  out += "\n|----------:|---------:|";
  for (size_t i = 0; i < columns.size(); ++i) out += "------------------:|";
  out += "\n";
  for (size_t row = 0; row < lengths.size(); ++row) {
    out += fmt::format("| {:>9} | {:>8} |", lengths[row],
                       fmt::format("{:.1f} MiB", static_cast<double>(bytes[row]) / (1 << 20)));
    for (const Column& c : columns) {
      const Cell& cell = c.cells[row];
      out += fmt::format(" {:>17} |", fmt::format("{:.3f} ({:.3f}){}", cell.perplexity, cell.end,
                                                  lengths[row] > c.context ? "*" : ""));
    }
    out += "\n";
  }
  return out +
         "perplexity of the first so many positions (of their second half); *: beyond the context\n"
         "that the model then has. Scaling changes no KV bytes: longer texts take more.\n";
}

}  // namespace

std::vector<int64_t> parse_lengths(const std::string& text) {
  std::vector<int64_t> lengths;
  for (const std::string& part : split(text)) {
    const auto number = parse_number(part);
    const double unit = number && (number->second == "k" || number->second == "K") ? 1024 : 1;
    const double n = number ? number->first * unit : 0;
    const bool is_right =
        number && (number->second.empty() || unit > 1) && n >= 4 && n <= 1e9 && n == std::floor(n);
    const bool ascends = lengths.empty() || n > static_cast<double>(lengths.back());
    if (!is_right || !ascends) {
      throw UsageError(fmt::format(
          "--lengths {}: '{}' must be a whole number of positions from 4, larger than the one "
          "before it, such as 1024 or 1k",
          text, part));
    }
    lengths.push_back(static_cast<int64_t>(n));
  }
  return lengths;
}

std::vector<double> parse_factors(const std::string& text) {
  std::vector<double> factors;
  for (const std::string& part : split(text)) factors.push_back(parse_factor(part));
  return factors;
}

int run_lengths(const EngineArgs& args, const std::vector<paddock::TokenId>& tokens,
                const std::vector<int64_t>& lengths, const std::vector<double>& factors) {
  const std::vector<paddock::TokenId> text(tokens.begin(), tokens.begin() + lengths.back());
  std::vector<Column> columns;
  std::vector<uint64_t> bytes;
  for (const double factor : factors) {
    const auto model = args.load_model(factor);
    paddock::QualityOptions options;
    options.engine = args.engine_options();
    options.engine.context = lengths.back();
    options.positions = lengths.back();
    paddock::QualityMeter meter(model, options);
    const InterruptGuard guard([&meter] { meter.cancel(); });
    try {
      columns.push_back(measure(factor, *model, text, lengths, meter));
    } catch (const paddock::Error& e) {
      if (e.code() == paddock::ErrorCode::kCancelled && InterruptGuard::interrupted()) return 130;
      throw;
    }
    if (!bytes.empty()) continue;
    for (const int64_t n : lengths) bytes.push_back(kv_bytes(model, options.engine, n));
  }
  if (!args.json) {
    print(table(lengths, bytes, columns));
    return 0;
  }
  Json out = {
      {"tokens", lengths.back()}, {"scaling", args.rope_scaling}, {"lengths", Json::array()}};
  for (size_t row = 0; row < lengths.size(); ++row) {
    Json line = {{"length", lengths[row]}, {"kv_bytes", bytes[row]}, {"factors", Json::array()}};
    for (const Column& c : columns) {
      line["factors"].push_back({{"factor", c.factor > 0 ? Json(c.factor) : Json()},
                                 {"context", c.context},
                                 {"perplexity", c.cells[row].perplexity},
                                 {"end_perplexity", c.cells[row].end}});
    }
    out["lengths"].push_back(std::move(line));
  }
  print_json(out);
  return 0;
}

}  // namespace cli
