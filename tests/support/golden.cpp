#include "support/golden.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace paddock::test {

nlohmann::json golden_json(const std::string& name) {
  std::ifstream file(golden(name));
  return nlohmann::json::parse(file);
}

std::vector<TokenId> golden_tokens() {
  return golden_json("tokens.json").get<std::vector<TokenId>>();
}

Matrix all_logits(Engine& engine, std::span<const TokenId> tokens) {
  Matrix out;
  engine.forward(tokens, [&](int64_t position, std::span<const float> row) {
    EXPECT_EQ(position, out.rows);
    ++out.rows;
    out.cols = static_cast<int64_t>(row.size());
    out.values.insert(out.values.end(), row.begin(), row.end());
    return true;
  });
  engine.check_integrity();
  return out;
}

Matrix all_logits(const std::string& model, const EngineOptions& options) {
  Engine engine(parts(Model::load(golden(model)), options));
  return all_logits(engine, golden_tokens());
}

double relative_error(const Matrix& actual, const Matrix& expected) {
  EXPECT_EQ(actual.rows, expected.rows);
  EXPECT_EQ(actual.cols, expected.cols);
  if (actual.values.size() != expected.values.size()) return INFINITY;
  double error = 0;
  double largest = 0;
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double e = std::fabs(double{actual.values[i]} - expected.values[i]);
    if (!(e <= error)) error = e;  // NaN counts
    largest = std::max(largest, std::fabs(double{expected.values[i]}));
  }
  EXPECT_GT(largest, 0.5) << "the expected logits are trivial";
  return error / largest;
}

}  // namespace paddock::test
