// The version of these headers and of the library that is linked.
#pragma once

#include "paddock/export.h"

#define PADDOCK_VERSION_MAJOR 0
#define PADDOCK_VERSION_MINOR 1
#define PADDOCK_VERSION_PATCH 0

namespace paddock {

/// Version of the linked library, such as "0.1.0".
PADDOCK_API const char* version() noexcept;

}  // namespace paddock
