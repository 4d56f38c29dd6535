#include "paddock/version.h"

#define PADDOCK_STRINGIFY_(x) #x
#define PADDOCK_STRINGIFY(x) PADDOCK_STRINGIFY_(x)

namespace paddock {

const char* version() noexcept {
  return PADDOCK_STRINGIFY(PADDOCK_VERSION_MAJOR) "." PADDOCK_STRINGIFY(
      PADDOCK_VERSION_MINOR) "." PADDOCK_STRINGIFY(PADDOCK_VERSION_PATCH);
}

}  // namespace paddock
