// Linked into a test program, makes the device "cuda" an emulated one; engines that name no device
// run on the CPU all the same.
#include "engine/engine_impl.h"
#include "support/golden.h"
#include "support/simt/simt_runtime.h"

namespace paddock::test {

const bool kOnCuda = false;
const bool kEmulated = false;
const char* const kDevice = "auto";

std::shared_ptr<Engine::Impl> parts(std::shared_ptr<const Model> model,
                                    const EngineOptions& options) {
  return make_engine_impl(std::move(model), options, simt::make_backend);
}

}  // namespace paddock::test
