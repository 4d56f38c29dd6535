// A model of one layer with the small tokenizer, as a Hugging Face folder: 2 KB of weights that
// make it say "a" again and again.
#pragma once

#include "support/temporary_folder.h"

namespace paddock::test {

void write_small_model(const TemporaryFolder& folder);
/// Likewise, with weights between -1 and 1 of which no two need be alike: what it says depends on
/// all that it sees.
void write_random_model(const TemporaryFolder& folder);

}  // namespace paddock::test
