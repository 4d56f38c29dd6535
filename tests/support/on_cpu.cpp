// Linked into a test program that has not support/on_cuda.cpp: engines that name no device run on
// the CPU. With PADDOCK_EMULATED_CUDA those that name "cuda" run on an emulated one.
#include "engine/engine_impl.h"
#include "engine/plan.h"
#include "support/golden.h"
#if defined(PADDOCK_EMULATED_CUDA)
#include "support/simt/simt_runtime.h"
#endif

namespace paddock::test {

#if defined(PADDOCK_EMULATED_CUDA)
using simt::make_backend;
#endif
const bool kOnCuda = false;
const bool kEmulated = false;
const char* const kDevice = "auto";

std::shared_ptr<Engine::Impl> parts(std::shared_ptr<const Model> model,
                                    const EngineOptions& options) {
  return make_engine_impl(std::move(model), options, make_backend);
}

EnginePlan plan_of(const std::string& path, const EngineOptions& options) {
  EngineOptions here = options;
  if (here.device == "auto") here.device = kDevice;
  return plan_engine(*read_headers(path), here, {}, make_backend);
}

}  // namespace paddock::test
