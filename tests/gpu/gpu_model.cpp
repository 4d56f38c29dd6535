// gpu_model: writes the models that gpu_speed and gpu_logits run. Needs no device.
//
//   gpu_model SHAPE FILE.gguf [TYPE [SEED]]
//       SHAPE 1B, 8B or tiny; random weights of TYPE: BF16 (if not given), Q8_0, Q4_0 and so on
//   gpu_model truncate MODEL.gguf LAYERS OUT.gguf [TOKENS]
//       a model's first layers and, if given, the first rows of its embedding
#include <fmt/format.h>
#include <paddock/error.h>

#include <cstdlib>

#include "gpu/model_maker.h"
#include "support/random_blocks.h"

namespace {

paddock::DType type_named(const std::string& name) {
  for (const paddock::DType type : paddock::kDTypes) {
    if (name == paddock::dtype_traits(type).name) return type;
  }
  throw std::runtime_error(fmt::format("'{}' is no type; there are BF16, Q8_0, Q4_0, ...", name));
}

}  // namespace

int main(int argc, char** argv) {
  using namespace paddock::bench;
  const std::vector<std::string> args(argv + 1, argv + argc);
  try {
    if (args.size() >= 4 && args.size() <= 5 && args[0] == "truncate") {
      const uint64_t tokens = args.size() > 4 ? std::strtoull(args[4].c_str(), nullptr, 10) : 0;
      truncate_model(args[1], std::atoi(args[2].c_str()), args[3], tokens);
    } else if (args.size() >= 2 && args.size() <= 4) {
      const uint64_t seed = args.size() > 3 ? std::strtoull(args[3].c_str(), nullptr, 10) : 1;
      make_model(args[1], shape_named(args[0]), type_named(args.size() > 2 ? args[2] : "BF16"),
                 seed);
    } else {
      fmt::print(stderr,
                 "usage: gpu_model 1B|8B|tiny FILE.gguf [TYPE [SEED]]\n"
                 "       gpu_model truncate MODEL.gguf LAYERS OUT.gguf [TOKENS]\n");
      return 2;
    }
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
  return 0;
}
