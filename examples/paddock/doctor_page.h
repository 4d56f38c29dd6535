// The doctor's report: one page that needs nothing else.
#pragma once

#include <paddock/doctor.h>

#include <optional>
#include <string>
#include <vector>

#include "doctor_rerun.h"

namespace cli {

struct ExaminedTrace {
  std::string path;
  paddock::Diagnosis diagnosis;
  std::optional<Reruns> reruns{};  // where a model and a text were given
};

std::string doctor_page(const std::vector<ExaminedTrace>& traces);

}  // namespace cli
