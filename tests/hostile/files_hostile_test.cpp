// GGUF and safetensors files that lie: every claim is refused with an Error, nothing is allocated
// for it.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>

#include "io/gguf.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "paddock/error.h"
#include "paddock/model.h"
#include "support/temporary_folder.h"

namespace paddock::test {
namespace {

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// Little-endian values one after another.
class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& raw(const std::string& text) {
    text_ += text;
    return *this;
  }
  Bytes& text(const std::string& value) { return put(uint64_t{value.size()}).raw(value); }
  std::string str() const { return text_; }

 private:
  std::string text_;
};

struct Tensor {
  std::string name = "a";
  std::vector<uint64_t> dims = {4};
  uint32_t type = 0;
  uint64_t offset = 0;
};

std::string gguf_file(const std::string& metadata, uint64_t n_metadata,
                      const std::vector<Tensor>& tensors, size_t data_bytes, uint64_t align = 32) {
  Bytes out;
  out.raw("GGUF").put(uint32_t{3}).put(uint64_t{tensors.size()}).put(n_metadata).raw(metadata);
  for (const Tensor& t : tensors) {
    out.text(t.name).put(static_cast<uint32_t>(t.dims.size()));
    for (const uint64_t d : t.dims) out.put(d);
    out.put(t.type).put(t.offset);
  }
  std::string text = out.str();
  text.resize((text.size() + align - 1) / align * align + data_bytes);
  return text;
}

std::string key_u32(const std::string& key, uint32_t value) {
  return Bytes().text(key).put(uint32_t{4}).put(value).str();
}

void refuse_gguf(const std::string& file, const char* what) {
  try {
    gguf::parse(as_bytes(file));
    ADD_FAILURE() << what << " was accepted";
  } catch (const Error& e) {
    EXPECT_TRUE(e.code() == ErrorCode::kBadFile || e.code() == ErrorCode::kUnsupported) << what;
  }
}

TEST(GgufHostile, AWellFormedFileIsRead) {
  const std::string file = gguf_file(key_u32("k", 7), 1, {{}}, 16);  // the header points into it
  const gguf::Header header = gguf::parse(as_bytes(file));
  ASSERT_EQ(header.tensors.size(), 1U);
  EXPECT_EQ(header.tensors[0].bytes, 16U);
  EXPECT_EQ(std::get<uint64_t>(*header.find("k")), 7U);
}

TEST(GgufHostile, EveryTruncationIsRefused) {
  const std::string whole = gguf_file(key_u32("k", 7), 1, {{}}, 16);
  for (size_t n = 0; n < whole.size(); ++n) refuse_gguf(whole.substr(0, n), "a truncated file");
}

TEST(GgufHostile, CountsBeyondTheFile) {
  for (const uint64_t n : {uint64_t{1} << 20, uint64_t{1} << 40, UINT64_MAX}) {
    refuse_gguf(Bytes().raw("GGUF").put(uint32_t{3}).put(n).put(uint64_t{0}).str(), "tensors");
    refuse_gguf(Bytes().raw("GGUF").put(uint32_t{3}).put(uint64_t{0}).put(n).str(), "metadata");
    for (const uint32_t type : {0U, 4U, 8U, 12U}) {
      const std::string array = Bytes().text("k").put(uint32_t{9}).put(type).put(n).str();
      refuse_gguf(gguf_file(array, 1, {}, 0), "an array's length");
    }
    const std::string text = Bytes().text("k").put(uint32_t{8}).put(n).str();
    refuse_gguf(gguf_file(text, 1, {}, 0), "a string's length");
  }
}

TEST(GgufHostile, ShapesThatOverflow) {
  refuse_gguf(gguf_file("", 0, {{"a", {(uint64_t{1} << 42) + 1, uint64_t{1} << 22}, 0, 0}}, 64),
              "dims whose product wraps");
  refuse_gguf(gguf_file("", 0, {{"a", {uint64_t{1} << 62}, 0, 0}}, 64), "a size that wraps");
  refuse_gguf(gguf_file("", 0, {{"a", {UINT64_MAX}, 0, 0}}, 64), "a huge dim");
  refuse_gguf(gguf_file("", 0, {{"a", {0}, 0, 0}}, 64), "an empty dim");
  refuse_gguf(gguf_file("", 0, {{"a", {1, 1, 1, 1, 1}, 0, 0}}, 64), "five dims");
  refuse_gguf(gguf_file("", 0, {{"a", {31}, 2, 0}}, 64), "a row that is no whole block");
  refuse_gguf(gguf_file("", 0, {{"a", {4}, 0, UINT64_MAX - 31}}, 64), "an offset that wraps");
  refuse_gguf(gguf_file("", 0, {{"a", {4}, 0, 8}}, 64), "an unaligned offset");
  refuse_gguf(gguf_file("", 0, {{"a", {17}, 0, 0}}, 64), "a tensor beyond the end");
  refuse_gguf(gguf_file("", 0, {{"a", {16}, 0, 0}, {"b", {4}, 0, 32}}, 64), "overlap");
  refuse_gguf(gguf_file("", 0, {{"a", {4}, 0, 0}, {"a", {4}, 0, 32}}, 64), "equal names");
  refuse_gguf(gguf_file("", 0, {{std::string(64, 'n'), {4}, 0, 0}}, 64), "a long name");
}

TEST(GgufHostile, BadMetadata) {
  for (const uint32_t align : {0U, 3U, 1U << 30}) {
    refuse_gguf(gguf_file(key_u32("general.alignment", align), 1, {}, 0), "alignment");
  }
  const std::string text = Bytes().text("general.alignment").put(uint32_t{8}).text("32").str();
  refuse_gguf(gguf_file(text, 1, {}, 0), "alignment as text");
  refuse_gguf(gguf_file(key_u32("k", 1) + key_u32("k", 2), 2, {}, 0), "a key twice");
  refuse_gguf(gguf_file(Bytes().text("k").put(uint32_t{13}).str(), 1, {}, 64), "a value type");
  refuse_gguf(gguf_file(Bytes().text("k").put(uint32_t{9}).put(uint32_t{9}).put(uint64_t{1}).str(),
                        1, {}, 64),
              "a nested array");
  refuse_gguf(Bytes().raw("GGUF").put(uint32_t{1}).put(uint64_t{0}).put(uint64_t{0}).str(), "v1");
  refuse_gguf(Bytes().raw("GGUF").put(uint32_t{0x03000000}).put(uint64_t{0}).put(uint64_t{0}).str(),
              "a big-endian file");
}

TEST(GgufHostile, UnknownTensorTypesAreNamed) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.gguf", gguf_file("", 0, {{"weird", {256}, 23, 0}}, 136));
  try {
    (void)gguf::File::open(path)->tensors();
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("IQ4_XS"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("weird"), std::string::npos) << e.what();
  }
}

TEST(GgufHostile, SplitFilesAreChecked) {
  const TemporaryFolder folder;
  const auto part = [](uint32_t number) {
    return gguf_file(key_u32("split.count", 2) + key_u32("split.no", number), 2,
                     {{"t" + std::to_string(number), {4}, 0, 0}}, 16);
  };
  const std::string first = folder.write("m-00001-of-00002.gguf", part(0));
  EXPECT_THROW(gguf::File::open(first), Error);  // the second is missing
  const std::string second = folder.write("m-00002-of-00002.gguf", part(1));
  EXPECT_EQ(gguf::File::open(second)->tensors().size(), 2U);  // any part will do
  folder.write("m-00002-of-00002.gguf", part(0));
  EXPECT_THROW(gguf::File::open(first), Error);  // twice the same part
  folder.write("-00002-of-00002.gguf", part(1));
  EXPECT_EQ(gguf::File::open(folder.write("-00001-of-00002.gguf", part(0)))->tensors().size(), 2U);
  for (const char* name :
       {"m.gguf", "00001-of-00002.gguf", "m-0001-of-00002.gguf", "m-00001-of-0000x.gguf",
        "m-00001-of-00002.ggu", "m-00001_of-00002.gguf"}) {
    try {
      gguf::File::open(folder.write(name, part(0)));
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("must look like NAME-00001-of-00002.gguf"),
                std::string::npos)
          << e.what();
    }
  }
}

std::string safetensors_file(const std::string& header, size_t data_bytes) {
  return Bytes().text(header).str() + std::string(data_bytes, '\0');
}

void refuse_safetensors(const std::string& file, const char* what) {
  try {
    safetensors::parse(as_bytes(file));
    ADD_FAILURE() << what << " was accepted";
  } catch (const Error& e) {
    EXPECT_TRUE(e.code() == ErrorCode::kBadFile || e.code() == ErrorCode::kUnsupported) << what;
  }
}

TEST(SafetensorsHostile, AWellFormedFileIsRead) {
  const auto tensors = safetensors::parse(as_bytes(safetensors_file(
      R"({"__metadata__":{"a":"b"},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}  )",
      12)));
  ASSERT_EQ(tensors.size(), 1U);
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{2, 3}));
}

TEST(SafetensorsHostile, LiesAreRefused) {
  const auto one = [](const std::string& dtype, const std::string& shape,
                      const std::string& offsets) {
    return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
           offsets + "}}";
  };
  refuse_safetensors("", "an empty file");
  refuse_safetensors(Bytes().put(UINT64_MAX).str(), "a header length that wraps");
  refuse_safetensors(Bytes().put(uint64_t{200'000'000}).str(), "a huge header");
  refuse_safetensors(safetensors_file("[]", 0), "an array");
  refuse_safetensors(safetensors_file("{", 0), "half an object");
  refuse_safetensors(safetensors_file(std::string(100000, '['), 0), "deep nesting");
  refuse_safetensors(safetensors_file("{\"a\":" + std::string(90000, '['), 0),
                     "deep nesting inside");
  refuse_safetensors(safetensors_file(one("F32", "[2]", "[8,0]"), 8), "reversed offsets");
  refuse_safetensors(safetensors_file(one("F32", "[2]", "[0,16]"), 8), "an end beyond the file");
  refuse_safetensors(safetensors_file(one("F32", "[3]", "[0,8]"), 8), "a shape of another size");
  refuse_safetensors(safetensors_file(one("F32", "[4294967296,4294967296,4]", "[0,8]"), 8),
                     "a product that wraps");
  refuse_safetensors(safetensors_file(one("F32", "[-2]", "[0,8]"), 8), "a negative dimension");
  refuse_safetensors(safetensors_file(one("F32", "[2.0]", "[0,8]"), 8), "a fraction");
  refuse_safetensors(safetensors_file(one("F8_E4M3", "[8]", "[0,8]"), 8), "an unknown type");
  refuse_safetensors(safetensors_file(one("F32", "[2]", "[0,8]"), 12),
                     "bytes that belong to nobody");
  refuse_safetensors(safetensors_file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                                      R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                                      6),
                     "an overlap");
  refuse_safetensors(safetensors_file(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                      R"("a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
                                      4),
                     "a name twice");
}

TEST(SafetensorsHostile, ShardNamesStayInTheFolder) {
  const TemporaryFolder folder;
  for (const char* name : {"../evil.safetensors", "/etc/passwd", "a\\\\b", "..", ""}) {
    folder.write("model.safetensors.index.json",
                 std::string(R"({"weight_map":{"w":")") + name + "\"}}");
    EXPECT_THROW(safetensors::Folder::open(folder.path()), Error) << name;
  }
}

TEST(SafetensorsHostile, AByteOrderMarkIsRefusedByName) {
  const std::string mark = "\xEF\xBB\xBF";
  const TemporaryFolder folder;
  folder.write("model.safetensors.index.json", mark + R"({"weight_map":{"w":"a.safetensors"}})");
  const auto expect = [](const auto& read, const std::string& file) {
    try {
      read();
      ADD_FAILURE() << file;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadFile);
      EXPECT_EQ(std::string(error.what()).find(file + ": it begins with a byte order mark"), 0U)
          << error.what();
    }
  };
  expect([&] { safetensors::Folder::open(folder.path()); }, "model.safetensors.index.json");
  expect([&] { config_from_json(as_bytes(mark + "{}"), {}); }, "config.json");
}

TEST(ConfigHostile, WhatIsNotALlamaIsRefusedByName) {
  const std::string good =
      R"("model_type":"llama","num_hidden_layers":2,"hidden_size":32,"intermediate_size":48,)"
      R"("num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,)"
      R"("max_position_embeddings":64,"rms_norm_eps":1e-5)";
  const auto read = [&](const std::string& more) {
    return config_from_json(as_bytes("{" + good + more + "}"), {});
  };
  EXPECT_EQ(read("").head_dim, 8);
  const std::pair<const char*, const char*> refused[] = {
      {R"(,"hidden_act":"gelu")", "gelu"},
      {R"(,"attention_bias":true)", "attention_bias"},
      {R"(,"mlp_bias":true)", "mlp_bias"},
      {R"(,"rope_scaling":{"rope_type":"longrope","factor":2})", "longrope"},
      {R"(,"rope_scaling":{"rope_type":"linear","factor":0})", "factor"},
      {R"(,"rope_scaling":{"rope_type":"linear"})", "factor"},
      {R"(,"head_dim":7)", "7"},
      {R"(,"head_dim":-4)", "head_dim"},
      {R"(,"head_dim":1e30)", "head_dim"},
      {R"(,"architectures":["MistralForCausalLM"])", "Mistral"},
      {R"(,"quantization_config":{})", "quantization_config"}};
  for (const auto& [more, name] : refused) {
    try {
      read(more);
      ADD_FAILURE() << more << " was accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
  }
}

TEST(ModelHostile, MissingThingsAreNotFound) {
  for (const char* path : {"/nonexistent", "/dev/null", "/"}) {
    EXPECT_THROW(Model::load(path), Error) << path;
    EXPECT_THROW(inspect_json(path), Error) << path;
  }
}

TEST(ModelHostile, LoadingCanBeCancelled) {
  LoadOptions options;
  options.on_progress = [](double fraction) { return fraction < 0.2; };
  try {
    Model::load(std::string(PADDOCK_TEST_DATA) + "/golden/gqa1-Q8_0.gguf", options);
    FAIL() << "not cancelled";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCancelled);
  }
}

TEST(ModelHostile, FlippedBitsNeverCrash) {
  const std::string path = std::string(PADDOCK_TEST_DATA) + "/golden/gqa1-Q4_1.gguf";
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  int accepted = 0;
  for (size_t i = 0; i < 2500; ++i) {
    std::string copy = bytes;
    copy[i] = static_cast<char>(copy[i] ^ (1 << i % 8));
    try {
      gguf::parse(as_bytes(copy));
      ++accepted;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 2500);
}

}  // namespace
}  // namespace paddock::test
