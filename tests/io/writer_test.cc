// The writer: what it wrote reads back, sharding, and that a failure leaves nothing behind.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <numeric>
#include <set>

#include "base/file.h"
#include "fixture.h"
#include "io/safetensors.h"
#include "io/safetensors_writer.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

std::set<std::string> files_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

std::vector<std::byte> pattern(size_t count, int seed) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::byte>(i * 31 + static_cast<size_t>(seed));
  }
  return bytes;
}

int64_t bytes_of_spec(const TensorSpec& spec) {
  return std::accumulate(spec.shape.begin(), spec.shape.end(), int64_t{spec.dtype->bits},
                         std::multiplies<>()) /
         8;
}

// One tensor of every dtype, and the odd ones.
std::vector<TensorSpec> all_kinds() {
  std::vector<TensorSpec> specs;
  for (const Dtype& dtype : all_dtypes()) {
    specs.push_back({"t." + std::string(dtype.name), &dtype, {3, 8}});
  }
  specs.push_back({"rank 0", find_dtype("F32"), {}});
  specs.push_back({"no rows", find_dtype("BF16"), {0, 5}});
  specs.push_back({"no columns", find_dtype("I64"), {5, 0}});
  specs.push_back({"\"quotes\" \\ \n \xc3\xa4", find_dtype("U8"), {1}});
  specs.push_back({"", find_dtype("F16"), {1, 2, 3, 4}});
  return specs;
}

void write_all(SafetensorsWriter& writer, const std::vector<TensorSpec>& specs) {
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto bytes = pattern(static_cast<size_t>(bytes_of_spec(specs[i])), static_cast<int>(i));
    const size_t half = bytes.size() / 2;
    writer.write(specs[i].name, std::span(bytes).first(half));
    writer.write(specs[i].name, std::span(bytes).subspan(half));
  }
}

void expect_all(const Checkpoint& checkpoint, const std::vector<TensorSpec>& specs) {
  ASSERT_EQ(checkpoint.tensors().size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorInfo& tensor = checkpoint.at(specs[i].name);
    EXPECT_EQ(tensor.dtype, specs[i].dtype);
    EXPECT_EQ(tensor.shape, specs[i].shape);
    std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes));
    checkpoint.read_rows(tensor, 0, bytes);
    EXPECT_EQ(bytes, pattern(bytes.size(), static_cast<int>(i))) << specs[i].name;
    EXPECT_EQ(tensor.offset % std::max(1, tensor.dtype->bits / 8), 0) << "alignment";
  }
}

TEST(Writer, RoundTripOfEveryKind) {
  const TempDir dir;
  const std::vector<TensorSpec> specs = all_kinds();
  SafetensorsWriter writer(dir.path() / "new", specs, {.metadata = {{"k", "v"}, {"\"", "\n"}}});
  write_all(writer, specs);
  writer.finish();
  EXPECT_EQ(files_in(dir.path() / "new"), std::set<std::string>{"model.safetensors"});
  const Checkpoint checkpoint = Checkpoint::open(dir.path() / "new");
  expect_all(checkpoint, specs);
  EXPECT_EQ(checkpoint.metadata().at("\""), "\n");
}

TEST(Writer, RoundTripInShards) {
  const TempDir dir;
  const std::vector<TensorSpec> specs = all_kinds();
  SafetensorsWriter writer(dir.path(), specs, {.shard_bytes_max = 200});
  write_all(writer, specs);
  EXPECT_EQ(files_in(dir.path()).count("model.safetensors.index.json"), 0u) << "not yet";
  writer.finish();
  const Checkpoint checkpoint = Checkpoint::open(dir.path());
  EXPECT_GT(checkpoint.files().size(), 4u);
  expect_all(checkpoint, specs);
  for (const File& file : checkpoint.files()) EXPECT_LT(file.size(), 3000);
}

TEST(Writer, NoTensors) {
  const TempDir dir;
  SafetensorsWriter writer(dir.path(), {});
  writer.finish();
  EXPECT_EQ(Checkpoint::open(dir.path()).tensors().size(), 0u);
}

TEST(Writer, ATensorLargerThanAShardGetsItsOwn) {
  const TempDir dir;
  const Dtype* u8 = find_dtype("U8");
  const std::vector<TensorSpec> specs = {{"a", u8, {10}}, {"b", u8, {500}}, {"c", u8, {10}}};
  SafetensorsWriter writer(dir.path(), specs, {.shard_bytes_max = 100});
  write_all(writer, specs);
  writer.finish();
  EXPECT_EQ(
      files_in(dir.path()),
      (std::set<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                             "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
}

TEST(Writer, AbandonedLeavesNothing) {
  const TempDir dir;
  {
    SafetensorsWriter writer(dir.path(), all_kinds(), {.shard_bytes_max = 200});
    writer.write("t.U8", pattern(10, 0));
  }
  EXPECT_EQ(files_in(dir.path()), std::set<std::string>{});
}

// A full disk, as a limit on the size of files.
TEST(Writer, FullDiskLeavesNothing) {
  const TempDir dir;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error = error_of([&] {
    SafetensorsWriter writer(dir.path(), {{"w", find_dtype("U8"), {100'000}}});
    writer.write("w", pattern(100'000, 0));
    writer.finish();
  });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_NE(error.find("cannot write"), std::string::npos) << error;
  EXPECT_EQ(files_in(dir.path()), std::set<std::string>{});
}

TEST(Writer, RefusesToMixModels) {
  const TempDir dir;
  dir.write("model-00007-of-00009.safetensors", "");
  const std::string error = error_of([&] { SafetensorsWriter(dir.path(), all_kinds()); });
  EXPECT_NE(error.find("already has a model: \"model-00007-of-00009.safetensors\""),
            std::string::npos)
      << error;
}

TEST(Writer, RefusesBadDeclarations) {
  const TempDir dir;
  const Dtype* f4 = find_dtype("F4");
  const auto says = [&](std::vector<TensorSpec> specs, const char* part) {
    const std::string error = error_of([&] { SafetensorsWriter(dir.path(), std::move(specs)); });
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  says({{"w", f4, {2}}, {"w", f4, {2}}}, "\"w\" is used twice");
  says({{"__metadata__", f4, {2}}}, "is reserved");
  says({{"w", f4, {3}}}, "is not a whole number of bytes");
  says({{"w", f4, {int64_t{1} << 40, int64_t{1} << 40}}}, "is larger than 64 bits");
  EXPECT_EQ(files_in(dir.path()), std::set<std::string>{});
}

}  // namespace
}  // namespace mantissa
