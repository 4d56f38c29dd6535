// What tests of the conformance suite ask of it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "paddock/testing.h"

namespace paddock {

inline ConformanceOptions untimed() {
  ConformanceOptions options;
  options.measure_cost = false;
  return options;
}

template <typename Policy>
ConformanceReport check() {
  return check_policy([] { return std::make_shared<Policy>(); }, untimed());
}

/// The only finding.
inline void expect_only(const ConformanceReport& report, FindingKind kind, Severity severity,
                        const std::string& says) {
  ASSERT_EQ(report.findings.size(), 1U) << to_text(report);
  EXPECT_EQ(report.findings[0].kind, kind) << to_text(report);
  EXPECT_EQ(report.findings[0].severity, severity) << to_text(report);
  EXPECT_NE(report.findings[0].sentence.find(says), std::string::npos) << to_text(report);
  EXPECT_EQ(report.conforms(), severity == Severity::kWarning);
  const std::string text = to_text(report);
  EXPECT_NE(text.find(std::string("[") + finding_kind_name(kind) + "]"), std::string::npos) << text;
  EXPECT_EQ(text.back(), '\n');
}

}  // namespace paddock
