// Checkpoints as a whole: values against torch's, indexes, rows, what was read, what changes on
// disk.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <thread>

#include "base/file.h"
#include "base/json.h"
#include "fixture.h"
#include "io/safetensors.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

fs::path golden(const char* name) {
  return fs::path(MANTISSA_SOURCE_DIR) / "tests/golden/safetensors" / name;
}

constexpr char kPair[] =
    R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[1,1],"data_offsets":[2,4]}})";

TEST(Checkpoint, ReadsWhatTorchWrote) {
  const Checkpoint checkpoint = Checkpoint::open(golden("dtypes.safetensors"));
  EXPECT_EQ(checkpoint.metadata().at("made by"), "torch");
  const json::Document expected = json::parse_file(golden("dtypes.json"));
  const json::Value tensors = expected.root().at("tensors");
  EXPECT_EQ(tensors.size(), checkpoint.tensors().size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, row] = tensors.member(i);
    const TensorInfo& tensor = checkpoint.at(name);
    EXPECT_EQ(tensor.dtype->name, row.at("dtype").as_string()) << name;
    ASSERT_EQ(tensor.shape.size(), row.at("shape").size()) << name;
    for (size_t d = 0; d < tensor.shape.size(); ++d) {
      EXPECT_EQ(tensor.shape[d], row.at("shape")[d].as_int());
    }
    std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes));
    checkpoint.read_rows(tensor, 0, bytes);
    EXPECT_EQ(bytes, bytes_of(from_hex(row.at("hex").as_string()))) << name;
    const std::optional<json::Value> floats = row.find("float32_hex");
    EXPECT_EQ(floats.has_value(), tensor.dtype->to_f32 != nullptr) << name;
    if (!floats) continue;
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    checkpoint.read_rows_f32(tensor, 0, {values.data(), tensor.rows(), tensor.cols()});
    const std::string wanted = from_hex(floats->as_string());
    ASSERT_EQ(wanted.size(), values.size() * sizeof(float));
    for (size_t k = 0; k < values.size(); ++k) {
      float value = 0;
      std::memcpy(&value, wanted.data() + k * sizeof(float), sizeof(float));
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(values[k])) << name << " " << k;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(values[k]), std::bit_cast<uint32_t>(value))
            << name << " " << k;
      }
    }
  }
}

TEST(Checkpoint, ReadsShards) {
  const Checkpoint checkpoint = Checkpoint::open(golden("sharded"));
  EXPECT_EQ(checkpoint.files().size(), 2u);
  ASSERT_EQ(checkpoint.tensors().size(), 3u);
  EXPECT_EQ(checkpoint.tensor_bytes(), 12 + 16 + 4);
  EXPECT_EQ(checkpoint.at("c.weight").file, 1);
  float values[2] = {};
  checkpoint.read_rows_f32(checkpoint.at("c.weight"), 0, {values, 1, 2});
  EXPECT_EQ(values[1], 7.0f);
  EXPECT_EQ(checkpoint.find("d.weight"), nullptr);
}

TEST(Checkpoint, UnknownNameListsTheNearest) {
  const Checkpoint checkpoint = Checkpoint::open(golden("sharded"));
  const std::string error = error_of([&] { checkpoint.at("c.weigth"); });
  EXPECT_NE(error.find("no tensor \"c.weigth\"; the nearest names are \"c.weight\""),
            std::string::npos)
      << error;
}

TEST(Checkpoint, RowsIntoAStridedMatrix) {
  const Checkpoint checkpoint = Checkpoint::open(golden("dtypes.safetensors"));
  const TensorInfo& tensor = checkpoint.at("rank3");  // [2, 3, 4], 0..23
  EXPECT_EQ(tensor.rows(), 2);
  EXPECT_EQ(tensor.cols(), 12);
  EXPECT_EQ(tensor.shape_text(), "[2, 3, 4]");
  std::vector<float> out(2 * 20, -1.0f);
  checkpoint.read_rows_f32(tensor, 0, {out.data(), 2, 12, 20});
  EXPECT_EQ(out[11], 11.0f);
  EXPECT_EQ(out[12], -1.0f);  // between the rows
  EXPECT_EQ(out[20], 12.0f);
  checkpoint.read_rows_f32(tensor, 1, {out.data(), 1, 12});
  EXPECT_EQ(out[0], 12.0f);
  std::byte row[24];
  checkpoint.read_rows(tensor, 1, row);
  EXPECT_EQ(f32_from_bf16(std::bit_cast<uint16_t>(std::array{row[22], row[23]})), 23.0f);
}

TEST(Checkpoint, LongRowsAreReadInChunks) {
  const TempDir dir;
  constexpr int64_t kRows = 3, kCols = 50'001;
  std::vector<uint16_t> stored(kRows * kCols);
  for (size_t i = 0; i < stored.size(); ++i) stored[i] = bf16_from_f32(static_cast<float>(i % 251));
  const std::string_view data(reinterpret_cast<const char*>(stored.data()), stored.size() * 2);
  dir.write("model.safetensors",
            safetensors_file(text("{\"w\":{\"dtype\":\"BF16\",\"shape\":[", kRows, ",", kCols,
                                  "],\"data_offsets\":[0,", data.size(), "]}}"),
                             data));
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  for (const int64_t stride : {kCols, kCols + 7}) {
    std::vector<float> out(static_cast<size_t>(kRows * stride));
    checkpoint.read_rows_f32(checkpoint.at("w"), 1, {out.data(), 2, kCols, stride});
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        ASSERT_EQ(out[static_cast<size_t>(r * stride + c)],
                  static_cast<float>(((r + 1) * kCols + c) % 251));
      }
    }
  }
}

TEST(Checkpoint, IntegersAreNoFloats) {
  const Checkpoint checkpoint = Checkpoint::open(golden("dtypes.safetensors"));
  float out[4];
  const std::string error = error_of([&] {
    checkpoint.read_rows_f32(checkpoint.at("int32"), 0, {out, 1, 4});
  });
  EXPECT_NE(error.find("tensor \"int32\" is I32"), std::string::npos) << error;
}

TEST(Checkpoint, PackedRowsMustBeWholeBytes) {
  const TempDir dir;
  dir.write(
      "model.safetensors",
      safetensors_file(R"({"w":{"dtype":"F4","shape":[4,3],"data_offsets":[0,6]}})", "abcdef"));
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  std::byte all[6], one[1];
  checkpoint.read_rows(checkpoint.at("w"), 0, all);
  EXPECT_EQ(all[5], std::byte{'f'});
  const std::string error = error_of([&] { checkpoint.read_rows(checkpoint.at("w"), 1, one); });
  EXPECT_NE(error.find("not a whole number of bytes"), std::string::npos) << error;
}

TEST(Checkpoint, TellsWhatWasNotRead) {
  const Checkpoint checkpoint = Checkpoint::open(golden("sharded"));
  EXPECT_EQ(checkpoint.unread().size(), 3u);
  float out[6];
  checkpoint.read_rows_f32(checkpoint.at("a.weight"), 0, {out, 2, 3});
  checkpoint.mark_read(checkpoint.at("c.weight"));
  ASSERT_EQ(checkpoint.unread().size(), 1u);
  EXPECT_EQ(checkpoint.unread()[0]->name, "b.weight");
}

TEST(Checkpoint, ManyThreadsReadAtOnce) {
  const Checkpoint checkpoint = Checkpoint::open(golden("dtypes.safetensors"));
  const TensorInfo& tensor = checkpoint.at("codes_e4m3fn");
  std::vector<std::vector<float>> outs(4, std::vector<float>(256));
  std::vector<std::thread> threads;
  for (std::vector<float>& out : outs) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) checkpoint.read_rows_f32(tensor, 0, {out.data(), 1, 256});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& out : outs) EXPECT_EQ(out[0x7e], 448.0f);
}

TEST(Checkpoint, TruncatedWhileOpenIsAnError) {
  const TempDir dir;
  const fs::path path = dir.write("model.safetensors", safetensors_file(kPair, "abcd"));
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  fs::resize_file(path, fs::file_size(path) - 1);
  std::byte out[2];
  checkpoint.read_rows(checkpoint.at("a"), 0, out);
  const std::string error = error_of([&] { checkpoint.read_rows(checkpoint.at("b"), 0, out); });
  EXPECT_NE(error.find("it has changed since it was opened"), std::string::npos) << error;
  fs::resize_file(path, 0);
  EXPECT_NE(error_of([&] { checkpoint.read_rows(checkpoint.at("a"), 0, out); }), "");
}

struct IndexCase {
  const char* index;
  const char* says;
};

TEST(Checkpoint, IndexErrors) {
  const TempDir dir;
  dir.write("one.safetensors", safetensors_file(kPair, "abcd"));
  dir.write("two.safetensors",
            safetensors_file(R"({"c":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "a"));
  // clang-format off
  const IndexCase cases[] = {
      {R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"}})", ""},
      {R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})", ""},
      {R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"three.safetensors"}})",
       "the shard \"three.safetensors\" is missing from the folder"},
      {R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","d":"two.safetensors","c":"two.safetensors"}})",
       "tensor \"d\" is not in \"two.safetensors\", where weight_map says it is"},
      {R"({"weight_map":{"a":"one.safetensors"}})", "tensor \"b\" of \"one.safetensors\" is not in weight_map"},
      {R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"}})",
       "tensor \"b\" is in \"one.safetensors\", but weight_map says \"two.safetensors\""},
      {R"({"weight_map":{"a":"../one.safetensors"}})", "weight_map.a: expected the plain name of a .safetensors file"},
      {R"({"weight_map":{"a":"/etc/x.safetensors"}})", "expected the plain name of a .safetensors file"},
      {R"({"weight_map":{"a":"x\\y.safetensors"}})", "expected the plain name"},
      {R"({"weight_map":{"a":"one.safetensors\u0000.safetensors"}})", "expected the plain name"},
      {R"({"weight_map":{"a":"..safetensors/../../etc/passwd"}})", "expected the plain name"},
      {R"({"weight_map":{"a":""}})", "expected the plain name"},
      {R"({"weight_map":{"a":"config.json"}})", "expected the plain name"},
      {R"({"weight_map":{"a":7}})", "weight_map.a: expected a string, found 7"},
      {R"({"weight_map":{}})", "weight_map names no tensor"},
      {R"({"weight_map":[]})", "weight_map: expected an object of tensor names and files"},
      {R"({"metadata":{}})", "expected an object with the key \"weight_map\""},
      {R"([])", "the top level: expected an object"},
      {R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})", "the key \"a\" occurs twice"},
      {R"({"weight_map":)", "not valid JSON"},
  };
  // clang-format on
  for (const IndexCase& c : cases) {
    dir.write("model.safetensors.index.json", c.index);
    const std::string error = error_of([&] { Checkpoint::open(dir.path()); });
    EXPECT_EQ(error.empty(), *c.says == '\0') << c.index << "\n  " << error;
    EXPECT_NE(error.find(c.says), std::string::npos) << c.index << "\n  " << error;
  }
}

TEST(Checkpoint, TensorInTwoShards) {
  const TempDir dir;
  dir.write("one.safetensors", safetensors_file(kPair, "abcd"));
  dir.write("two.safetensors", safetensors_file(kPair, "abcd"));
  dir.write("model.safetensors.index.json",
            R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  EXPECT_NE(error_of([&] { Checkpoint::open(dir.path()); }).find("but weight_map says"),
            std::string::npos);
}

TEST(Checkpoint, WhatTheFolderHasInstead) {
  const TempDir dir;
  const auto says = [&](const fs::path& path, const char* part) {
    const std::string error = error_of([&] { Checkpoint::open(path); });
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  says(dir.path() / "nowhere", "there is no");
  says(dir.path(), "has neither model.safetensors nor model.safetensors.index.json");
  dir.write("pytorch_model.bin", "x");
  says(dir.path(), "; it has \"pytorch_model.bin\"");
  dir.write("model.safetensors", safetensors_file("{}"));
  EXPECT_EQ(Checkpoint::open(dir.path()).tensors().size(), 0u);
  dir.write("model.safetensors.index.json", R"({"weight_map":{}})");
  says(dir.path(), "has both model.safetensors and model.safetensors.index.json");
}

}  // namespace
}  // namespace mantissa
