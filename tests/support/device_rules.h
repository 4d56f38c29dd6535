// The rules that a device's logits are compared under, for gpu/gpu_logits.cpp, which runs where no
// ordinary test does, and for the ordinary test that sees to it that none is missing.
#pragma once

#include <fmt/format.h>
#include <paddock/eviction.h>

#include <algorithm>
#include <string>
#include <vector>

namespace paddock::test {

/// The forms of the registry whose name no rule of `rules` begins with.
inline std::vector<std::string> forms_without_rule(const std::vector<std::string>& rules) {
  std::vector<std::string> missing;
  for (const std::string& form : policy_forms()) {
    const std::string name = form.substr(0, form.find(':'));
    const auto is_its = [&](const std::string& rule) { return rule.starts_with(name); };
    if (std::none_of(rules.begin(), rules.end(), is_its)) missing.push_back(form);
  }
  return missing;
}

/// A rule or two for each name of the registry, keeping about half of `n` positions.
inline std::vector<std::string> device_rules(int n) {
  const int half = n / 2 / 16 * 16;
  const auto with = [&](const char* text) { return fmt::format(fmt::runtime(text), half); };
  return {"full",
          with("window:{}"),
          with("sink:4+{}"),
          with("sink:4+{}@original"),
          with("lru:{}@every:16"),
          with("h2o:{}@every:16"),
          with("h2o:{}@every:16@compact"),
          with("tova:{}@every:16"),
          with("snapkv:{}"),
          with("knorm:{}@every:16"),
          with("random:{}@every:16"),
          with("pyramid:h2o:{}@every:16"),
          with("cake:h2o:{}@every:16"),
          with("0=full,*=sink:4+{}")};
}

}  // namespace paddock::test
