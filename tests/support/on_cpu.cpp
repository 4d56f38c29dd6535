// Linked into a test program that has not support/on_cuda.cpp, nor support/simt/on_emulated.cpp.
#include "engine/engine_impl.h"
#include "support/golden.h"

namespace paddock::test {

const bool kOnCuda = false;
const bool kEmulated = false;
const char* const kDevice = "auto";

std::shared_ptr<Engine::Impl> parts(std::shared_ptr<const Model> model,
                                    const EngineOptions& options) {
  return make_engine_impl(std::move(model), options, make_backend);
}

}  // namespace paddock::test
