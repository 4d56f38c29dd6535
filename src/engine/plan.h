// An engine on paper: the sizes that its constructor would find, from the same functions.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/devices.h"
#include "engine/setup.h"
#include "model/headers.h"
#include "paddock/plan.h"

namespace paddock {

/// plan_engine() for devices that `maker` makes.
EnginePlan plan_engine(const ModelHeaders& model, const EngineOptions& options,
                       std::span<const uint64_t> memories, BackendMaker maker);

}  // namespace paddock
