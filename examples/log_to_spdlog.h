// Passes what Paddock has to say to spdlog. Include it where you use both; the library needs neither.
#pragma once

#include <paddock/log.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <utility>

inline void log_to_spdlog(std::shared_ptr<spdlog::logger> logger) {
  paddock::set_log_hook([logger = std::move(logger)](paddock::LogLevel level, std::string_view text) {
    switch (level) {
      case paddock::LogLevel::kDebug: return logger->debug("{}", text);
      case paddock::LogLevel::kInfo: return logger->info("{}", text);
      case paddock::LogLevel::kWarning: return logger->warn("{}", text);
    }
  });
}
