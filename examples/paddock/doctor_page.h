// The doctor's report: one page that needs nothing else.
#pragma once

#include <paddock/doctor.h>

#include <string>
#include <vector>

namespace cli {

struct ExaminedTrace {
  std::string path;
  paddock::Diagnosis diagnosis;
};

/// `device`: lines of the driver's own view of the machine's GPUs; empty: there is none.
std::string doctor_page(const std::vector<ExaminedTrace>& traces,
                        const std::vector<std::string>& device);

}  // namespace cli
