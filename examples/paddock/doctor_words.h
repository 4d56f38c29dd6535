// What the doctor says of a diagnosis, in words with numbers.
#pragma once

#include <paddock/doctor.h>

#include <string>
#include <vector>

namespace cli {

struct CauseWords {
  std::string title;   ///< what is wrong
  std::string why;     ///< the evidence
  std::string advice;  ///< what to do
  std::string flag;    ///< as it would be typed; empty: no option helps
};

/// A figure's value; 0 where there is none of the name.
double figure(const paddock::Diagnosis& d, const std::string& name);
/// As a person writes it: whole numbers without a point, others with four digits.
std::string number_text(double value);
/// "93.4 %".
std::string percent(double share);

CauseWords words_of(const paddock::Diagnosis& d, const paddock::DoctorCause& cause);
/// The first line: what ails the run, or that nothing does.
std::string verdict(const paddock::Diagnosis& d);
/// What the verdict rests on: one sentence.
std::string grounds(const paddock::Diagnosis& d);
/// What this trace cannot tell; empty: nothing that matters.
std::string blind_spot(const paddock::Diagnosis& d);
/// All of it for a terminal.
std::string doctor_text(const std::string& path, const paddock::Diagnosis& d);

}  // namespace cli
