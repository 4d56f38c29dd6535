// Constructors of the built-in policies, used by the registry alone. Arguments are checked.
#pragma once

#include <cstdint>
#include <memory>

#include "paddock/eviction.h"

namespace paddock {

std::shared_ptr<const EvictionPolicy> make_full();
std::shared_ptr<const EvictionPolicy> make_window(int32_t window, Positions positions);
std::shared_ptr<const EvictionPolicy> make_sink(int32_t sinks, int32_t window, Positions positions);

}  // namespace paddock
