// What tests of the thread that drives an engine begin with.
#pragma once

#include <paddock/runner.h>

#include <functional>
#include <memory>
#include <optional>

#include "engine/engine_impl.h"
#include "support/hooked_backend.h"
#include "support/small_requests.h"

namespace paddock::test {

using Shutdown = EngineRunner::Shutdown;

/// One whose passes the tests look into.
inline std::shared_ptr<Engine> hooked_engine() {
  return std::make_shared<Engine>(make_engine_impl(tiny(), small_options(3), make_hooked_backend));
}

/// Of what it throws; nothing if it throws no Error.
inline std::optional<ErrorCode> code_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.code();
  }
  return std::nullopt;
}

}  // namespace paddock::test
