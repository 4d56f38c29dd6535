// What the library has to say, through spdlog: --log-level, --log-file.
#pragma once

#include <string>
#include <string_view>

#include "command_line.h"

namespace cli {

class Log {
 public:
  void add_to(Options& options);
  /// Checks the options; from here on the library is heard. Warnings always come on stderr (unless
  /// the level is "off"), the rest there too, or in the file where one is given.
  void begin();
  /// Throws if something could not be written into the file.
  void end();

 private:
  std::string level_ = "warn", file_;
};

/// An error of the tool's own, into the file of --log-file if there is one: stderr has it already.
void log_error(std::string_view message);

/// `text` with control characters spelled out: one line, whatever the values that it quotes hold.
std::string one_line(std::string_view text);

}  // namespace cli
