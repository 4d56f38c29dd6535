// Linked into a test program that has not support/on_cuda.cpp.
#include "support/golden.h"

namespace paddock::test {

const bool kOnCuda = false;
const bool kEmulated = false;

}  // namespace paddock::test
