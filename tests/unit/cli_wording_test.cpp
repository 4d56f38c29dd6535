// Pieces of text that several commands write.
#include <gtest/gtest.h>

#include "wording.h"

namespace cli {
namespace {

TEST(CliWording, LayersAreRangesFromThreeNeighboursOn) {
  EXPECT_EQ(layers_text({}), "");
  EXPECT_EQ(layers_text({3}), "3");
  EXPECT_EQ(layers_text({28, 29}), "28,29");
  EXPECT_EQ(layers_text({0, 1, 2}), "0-2");
  EXPECT_EQ(layers_text({0, 2, 3, 5, 6, 7}), "0,2,3,5-7");
}

TEST(CliWording, ChoicesAreListedWithAnOr) {
  EXPECT_EQ(one_of({"f16"}), "f16");
  EXPECT_EQ(one_of({"f32", "f16"}), "f32 or f16");
  EXPECT_EQ(one_of({"f32", "f16", "bf16"}), "f32, f16 or bf16");
}

TEST(CliWording, ABeginningHasWholeCharacters) {
  EXPECT_EQ(beginning_of("four", 4), "four");
  EXPECT_EQ(beginning_of("fives", 4), "five...");
  EXPECT_EQ(beginning_of("a\u00e9\u00e9", 4), "a\u00e9...");
  EXPECT_EQ(beginning_of("\u20ac", 2), "...");
}

TEST(CliWording, NothingThatIsEscapedIsMarkup) {
  EXPECT_EQ(escaped("a<b>&'\"c"), "a&lt;b&gt;&amp;&#39;&quot;c");
}

}  // namespace
}  // namespace cli
