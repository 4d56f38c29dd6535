// What a stranger's program does with an installed Paddock.
#include <paddock/paddock.h>

#include <cstdio>
#include <cstring>

int main() {
  if (std::strcmp(paddock::version(), "0.1.0") != 0) return 1;
  try {
    paddock::make_policy("nonsense");
    return 2;
  } catch (const paddock::Error& e) {
    if (e.code() != paddock::ErrorCode::kInvalidArgument) return 3;
  }
  try {
    paddock::Model::load("/nonexistent.gguf");
    return 4;
  } catch (const paddock::Error& e) {
    std::puts(e.what());
    return e.code() == paddock::ErrorCode::kNotFound ? 0 : 5;
  }
}
