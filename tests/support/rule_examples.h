// A rule or two for each form of the registry, with arguments that suit blocks of up to four
// positions and texts of some hundred.
#pragma once

#include <gtest/gtest.h>
#include <paddock/eviction.h>

#include <cctype>
#include <set>
#include <string>
#include <vector>

namespace paddock::test {

struct RuleExample {
  std::string form;
  std::string policy;
};

/// Names the tests of each, for INSTANTIATE_TEST_SUITE_P.
inline std::string name_of(const testing::TestParamInfo<RuleExample>& rule) {
  std::string name = rule.param.policy;
  for (char& c : name) c = std::isalnum(c) != 0 ? c : '_';
  return name;
}

/// Whether rules of this form of the registry have no budget of their own.
inline bool is_elastic_form(const std::string& form) {
  return form != "full" && form.back() != 'B' && form.back() != 'W';
}
/// Those of rules with a budget, and `full`.
inline std::set<std::string> fixed_forms() {
  std::set<std::string> forms;
  for (const std::string& form : policy_forms()) {
    if (!is_elastic_form(form)) forms.insert(form);
  }
  return forms;
}

/// Fails the running test where a fixed form of the registry has no example.
inline std::vector<RuleExample> rule_examples() {
  std::vector<RuleExample> all = {{"full", "full"},
                                  {"window:W", "window:20"},
                                  {"sink:S+W", "sink:3+20"},
                                  {"sink:S+W", "sink:6+9@original"},
                                  {"lru:B", "lru:24@every:8"},
                                  {"lru:B", "lru:20@every:5@compact"},
                                  {"h2o:B", "h2o:32@every:8"},
                                  {"h2o:B", "h2o:32@every:16@sinks:2@recent:7@compact"},
                                  {"tova:B", "tova:20@every:6"},
                                  {"snapkv:B", "snapkv:24"},
                                  {"snapkv:B", "snapkv:24@recent:5@compact"},
                                  {"knorm:B", "knorm:20@every:9"},
                                  {"random:B", "random:20@every:8"},
                                  {"random:B", "random:26@every:7@seed:9@compact"},
                                  {"pyramid:NAME:B", "pyramid:h2o:48@every:8"},
                                  {"pyramid:NAME:B", "pyramid:random:40@every:16@compact"},
                                  {"cake:NAME:B", "cake:h2o:32@every:8@recent:7"},
                                  {"cake:NAME:B", "cake:random:26@every:8@compact"}};
  std::set<std::string> covered;
  for (const RuleExample& example : all) covered.insert(example.form);
  EXPECT_EQ(covered, fixed_forms());
  return all;
}

/// Fails the running test where an elastic form of the registry has no example.
inline std::vector<RuleExample> elastic_examples() {
  std::vector<RuleExample> all = {{"window", "window@every:8"},
                                  {"window", "window@every:5@compact"},
                                  {"sink:S", "sink:3@every:8"},
                                  {"sink:S", "sink:6@every:16@original"},
                                  {"lru", "lru@every:8"},
                                  {"lru", "lru@every:4@min:30@compact"},
                                  {"h2o", "h2o@every:8"},
                                  {"h2o", "h2o@every:16@sinks:2@recent:7@compact"},
                                  {"tova", "tova@every:8"},
                                  {"tova", "tova@every:6@compact"},
                                  {"knorm", "knorm@every:8"},
                                  {"pyramid:NAME", "pyramid:h2o@every:8"},
                                  {"pyramid:NAME", "pyramid:knorm@every:16@compact"},
                                  {"cake:NAME", "cake:h2o@every:8"},
                                  {"cake:NAME", "cake:lru@every:64"},
                                  {"cake:NAME", "cake:knorm@every:16@compact"}};
  std::set<std::string> covered, forms;
  for (const RuleExample& example : all) covered.insert(example.form);
  for (const std::string& form : policy_forms()) {
    if (is_elastic_form(form)) forms.insert(form);
  }
  EXPECT_EQ(covered, forms);
  return all;
}

}  // namespace paddock::test
