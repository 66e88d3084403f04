// SPDX-License-Identifier: MIT
#include "zmlx/model/checkpoint/safetensors.h"

#include <chrono>

#include <gtest/gtest.h>

#include "tests/checkpoint/temporary_folder.h"
#include "zmlx/base/error.h"
#include "zmlx/base/json.h"
#include "zmlx/model/checkpoint/safetensors_writer.h"

namespace zmlx {
namespace {

// A file of this header text and so many bytes of data.
std::string file_of(const std::string& header, size_t data_bytes = 0) {
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  }
  return file + header + std::string(data_bytes, '\0');
}

std::string message_of(const std::string& file) {
  try {
    read_safetensors_header(file, "f");
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

std::string tensor(
    const std::string& name,
    const std::string& dtype,
    const std::string& shape,
    const std::string& offsets) {
  return concat(
      '"',
      name,
      R"(":{"dtype":")",
      dtype,
      R"(","shape":)",
      shape,
      R"(,"data_offsets":)",
      offsets,
      '}');
}

std::string one(
    const std::string& dtype,
    const std::string& shape,
    const std::string& offsets) {
  return "{" + tensor("x", dtype, shape, offsets) + "}";
}

TEST(SafetensorsHeader, ReadsTensorsMetadataAndOffsets) {
  const std::string text = "{\"__metadata__\":{\"format\":\"mlx\"}," +
      tensor("b", "BF16", "[2,3]", "[4,16]") + "," +
      tensor("a", "F32", "[]", "[0,4]") + "}  ";
  const auto header = read_safetensors_header(file_of(text, 16), "f");
  EXPECT_EQ(header.data_begin, 8 + text.size());
  EXPECT_EQ(header.metadata.at("format"), "mlx");
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].shape, mx::Shape{});
  EXPECT_EQ(header.tensors[1].dtype, mx::bfloat16);
  EXPECT_EQ(header.tensors[1].shape, (mx::Shape{2, 3}));
  EXPECT_EQ(header.tensors[1].begin, header.data_begin + 4);
  EXPECT_EQ(header.tensors[1].end, header.data_begin + 16);
}

TEST(SafetensorsHeader, TakesEveryDtype) {
  for (const auto& [name, dtype] : std::map<std::string, mx::Dtype>{
           {"F64", mx::float64},
           {"F32", mx::float32},
           {"F16", mx::float16},
           {"BF16", mx::bfloat16},
           {"I64", mx::int64},
           {"I32", mx::int32},
           {"I16", mx::int16},
           {"I8", mx::int8},
           {"U64", mx::uint64},
           {"U32", mx::uint32},
           {"U16", mx::uint16},
           {"U8", mx::uint8},
           {"BOOL", mx::bool_},
           {"F8_E4M3", mx::uint8},
           {"F8_E5M2", mx::uint8},
           {"F8_E8M0", mx::uint8}}) {
    const size_t bytes = 3 * dtype.size();
    const std::string text = one(name, "[3]", concat("[0,", bytes, "]"));
    const auto header = read_safetensors_header(file_of(text, bytes), "f");
    EXPECT_EQ(header.tensors.at(0).dtype, dtype) << name;
  }
}

TEST(SafetensorsHeader, TakesEmptyFilesAndEmptyTensorsAnywhere) {
  EXPECT_EQ(message_of(file_of("{}")), "");
  EXPECT_EQ(message_of(file_of("{\"__metadata__\":{}}")), "");
  EXPECT_EQ(message_of(file_of("{\"__metadata__\":null}")), "");
  const std::string text = "{" + tensor("a", "F32", "[0,4]", "[4,4]") + "," +
      tensor("b", "F32", "[1]", "[0,4]") + "," +
      tensor("c", "F32", "[2,0]", "[4,4]") + "," +
      tensor("d", "U8", "[0]", "[0,0]") + "," +
      tensor("e", "F32", "[1]", "[4,8]") + "}";
  EXPECT_EQ(message_of(file_of(text, 8)), "");
}

struct BadHeader {
  const char* name;
  std::string file;
  std::string message; // after "f: "
};

std::vector<BadHeader> bad_frames() {
  const std::string good = file_of(one("U8", "[4]", "[0,4]"), 4);
  return {
      {"empty",
       "",
       "must start with 8 bytes that give the header's length, got 0 bytes"},
      {"seven bytes", good.substr(0, 7), "got 7 bytes in all."},
      {"cut header",
       good.substr(0, 20),
       "header of 53 bytes must lie within the file, got 20 bytes in all."},
      {"cut data",
       good.substr(0, good.size() - 1),
       "tensor 'x' must have ordered data_offsets within the 3 bytes of data, "
       "got [0, 4]."},
      {"huge length",
       std::string(8, '\xff') + "{}",
       "header must have at most 100000000 bytes, got 18446744073709551615."},
      {"one over the limit",
       std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10),
       "header must have at most 100000000 bytes, got 100000001."},
      {"no header", file_of(""), "header must start with '{', got nothing."},
      {"space first", file_of(" {}"), "header must start with '{', got ' '."},
      {"a list", file_of("[]"), "header must start with '{', got '['."},
      {"control byte", file_of("\x1b{}"), "must start with '{', got '?'."},
      {"bad JSON",
       file_of("{\"x\":}"),
       "header is not valid JSON at its byte 6"},
      {"text after", file_of("{} x"), "header is not valid JSON at its byte 4"},
      {"NUL padding", file_of(std::string("{}\0", 3)), "not valid JSON"},
      {"bad UTF-8", file_of("{\"\xff\":1}"), "header is not valid JSON"},
      {"data after the last",
       good + "zz",
       "the data part must end with the last tensor, but 2 more bytes follow."},
      {"data without tensors", file_of("{}", 5), "but 5 more bytes follow."},
  };
}

std::vector<BadHeader> bad_tensors() {
  const auto bad = [](const char* dtype,
                      const char* shape,
                      const char* offsets,
                      size_t bytes = 4) {
    return file_of(one(dtype, shape, offsets), bytes);
  };
  return {
      {"unknown dtype",
       bad("F31", "[1]", "[0,4]"),
       "tensor 'x' must have a dtype of F64, F32, F16, BF16, I64, I32, I16, "
       "I8, U64, U32, U16, U8, BOOL, F8_E4M3, F8_E5M2, F8_E8M0, got 'F31'."},
      {"dtype in small letters", bad("f32", "[1]", "[0,4]"), "got 'f32'."},
      {"negative dim",
       bad("F32", "[-1]", "[0,4]"),
       "tensor 'x' must have a shape of integers 0..2147483647, got -1."},
      {"two negative dims", bad("F32", "[-1,-1]", "[0,4]"), "got -1."},
      {"broken dim", bad("F32", "[1.0]", "[0,4]"), "got 1.0."},
      {"dim above int32",
       bad("U8", "[2147483648]", "[0,4]"),
       "got 2147483648."},
      {"dim above int64",
       bad("U8", "[99999999999999999999]", "[0,4]"),
       "got 99999999999999999999."},
      {"null dim", bad("U8", "[null]", "[0,4]"), "got null."},
      {"dim as text", bad("U8", "[\"4\"]", "[0,4]"), "got the string '4'."},
      {"list in a shape", bad("U8", "[[4]]", "[0,4]"), "got a list."},
      {"shape no list",
       bad("U8", "4", "[0,4]"),
       "tensor 'x' must have a shape list, got 4."},
      {"wraparound to 0",
       bad("F32", "[1073741824,1073741824,1073741824]", "[0,0]", 0),
       "must have a shape whose bytes fit 64 bits, got (1073741824,"},
      {"wraparound to 4",
       bad("F32", "[2147483647,2147483647,2147483647,3]", "[0,4]"),
       "must have a shape whose bytes fit 64 bits"},
      {"nine dims",
       bad("U8", "[1,1,1,1,1,1,1,1,4]", "[0,4]"),
       "tensor 'x' must have at most 8 dimensions, got more."},
      {"too few bytes",
       bad("F32", "[2]", "[0,4]"),
       "tensor 'x' of dtype F32 and shape (2) must have 8 bytes, got 4."},
      {"too many bytes",
       bad("U8", "[3]", "[0,4]"),
       "must have 3 bytes, got 4."},
      {"bytes for none",
       bad("F32", "[0]", "[0,4]"),
       "must have 0 bytes, got 4."},
      {"end before begin",
       bad("F32", "[1]", "[4,0]"),
       "must have ordered data_offsets within the 4 bytes of data, got [4, "
       "0]."},
      {"end beyond the file", bad("F32", "[2]", "[0,8]"), "got [0, 8]."},
      {"offsets that wrap",
       bad("U8", "[4]", "[18446744073709551612,0]"),
       "got [18446744073709551612, 0]."},
      {"negative offset",
       bad("U8", "[4]", "[-4,0]"),
       "tensor 'x' must have two non-negative integers as data_offsets, got "
       "-4."},
      {"broken offset", bad("U8", "[4]", "[0,4.0]"), "data_offsets, got 4.0."},
      {"one offset", bad("U8", "[4]", "[0]"), "data_offsets, got 1."},
      {"no offsets", bad("U8", "[4]", "[]"), "data_offsets, got 0."},
      {"three offsets", bad("U8", "[4]", "[0,4,4]"), "got more than two."},
      {"offsets no list",
       bad("U8", "[4]", "{}"),
       "tensor 'x' must have a data_offsets list of two, got an object."},
  };
}

std::vector<BadHeader> bad_forms() {
  const auto two = [](const std::string& first, const std::string& second) {
    return file_of(
        "{" + tensor("a", "U8", "[4]", first) + "," +
            tensor("b", "U8", "[4]", second) + "}",
        8);
  };
  const std::string a = tensor("a", "U8", "[4]", "[0,4]");
  return {
      {"overlap",
       two("[0,4]", "[2,6]"),
       "tensors must not share bytes, but 'a' and 'b' overlap by 2."},
      {"the same bytes", two("[0,4]", "[0,4]"), "'a' and 'b' overlap by 4."},
      {"hole between",
       two("[0,4]", "[5,9]") + "x",
       "tensors must follow one another without a hole, but 1 bytes before 'b' "
       "belong to none."},
      {"hole in front",
       file_of(one("U8", "[4]", "[4,8]"), 8),
       "but 4 bytes before 'x' belong to none."},
      {"name twice",
       file_of("{" + a + "," + a + "}", 4),
       "must name each tensor once, got 'a' twice."},
      {"metadata twice",
       file_of(R"({"__metadata__":{},"__metadata__":{}})"),
       "got '__metadata__' twice."},
      {"metadata key twice",
       file_of(R"({"__metadata__":{"a":"1","a":"2"}})"),
       "__metadata__ must name each key once, got 'a' twice."},
      {"metadata number",
       file_of(R"({"__metadata__":{"a":1}})"),
       "__metadata__ must map strings to strings, got 1 for 'a'."},
      {"metadata object",
       file_of(R"({"__metadata__":{"a":{}}})"),
       "got an object for 'a'."},
      {"dtype twice",
       file_of(R"({"x":{"dtype":"U8","dtype":"U8"}})"),
       "must have dtype, shape and data_offsets once each, got 'dtype' twice."},
      {"shape twice",
       file_of(R"({"x":{"shape":[],"shape":[]}})"),
       "got 'shape' twice."},
      {"dtype missing",
       file_of(R"({"x":{"shape":[0],"data_offsets":[0,0]}})"),
       "tensor 'x' must have dtype, shape and data_offsets, dtype is missing."},
      {"shape missing",
       file_of(R"({"x":{"dtype":"U8","data_offsets":[0,0]}})"),
       "shape is missing."},
      {"offsets missing",
       file_of(R"({"x":{"dtype":"U8","shape":[0]}})"),
       "data_offsets is missing."},
      {"unknown key",
       file_of(R"({"x":{"stride":[1]}})"),
       "once each, got 'stride'."},
      {"dtype no string",
       file_of(R"({"x":{"dtype":8}})"),
       "tensor 'x' must have a dtype string, got 8."},
      {"tensor no object",
       file_of(R"({"x":7})"),
       "tensor 'x' must be described by an object, got 7."},
      {"tensor a string", file_of(R"({"x":"y"})"), "got the string 'y'."},
      {"deep nesting",
       file_of("{\"x\":" + std::string(100000, '[')),
       "tensor 'x' must be described by an object, got a list."},
      {"object in a tensor",
       file_of(R"({"x":{"dtype":{}}})"),
       "must have a dtype string, got an object."},
      {"escape sequence in a name",
       file_of(R"({"\u001b[31mred":1})"),
       "tensor '?[31mred' must be"},
      {"long name",
       file_of("{\"" + std::string(5000, 'n') + "\":1}"),
       "tensor '" + std::string(80, 'n') + "...' must be"},
  };
}

TEST(SafetensorsHeader, RefusesBadFilesEachWithItsReason) {
  size_t count = 0;
  for (const auto& list : {bad_frames(), bad_tensors(), bad_forms()}) {
    for (const auto& bad : list) {
      const std::string what = message_of(bad.file);
      EXPECT_EQ(what.rfind("f: ", 0), 0u) << bad.name << ": " << what;
      EXPECT_NE(what.find(bad.message), std::string::npos)
          << bad.name << ": " << what;
      ++count;
    }
  }
  EXPECT_GE(count, 60u);
}

TEST(SafetensorsHeader, EveryCutOfAGoodFileIsRefused) {
  const std::string text = "{\"__metadata__\":{\"format\":\"mlx\"}," +
      tensor("a", "F32", "[2]", "[0,8]") + "}";
  const std::string file = file_of(text, 8);
  ASSERT_EQ(message_of(file), "");
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(message_of(file.substr(0, size)), "") << size;
  }
}

TEST(SafetensorsHeader, HundredThousandTensorsTakeNoQuadraticTime) {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i) {
    text += i == 0 ? "" : ",";
    text += tensor(concat(i), "U8", "[0]", "[0,0]");
  }
  const auto header = read_safetensors_header(file_of(text + "}"), "f");
  EXPECT_EQ(header.tensors.size(), 100000u);
}

TEST(SafetensorsHeader, RefusesMoreThanAMillionTensors) {
  std::string text = "{";
  for (size_t i = 0; i <= kMaxTensors; ++i) {
    text += i == 0 ? "" : ",";
    text += tensor(concat(i), "U8", "[0]", "[0,0]");
  }
  const auto what = message_of(file_of(text + "}"));
  EXPECT_EQ(what, "f: must hold at most 1000000 tensors, got more.");
}

TEST(SaveSafetensors, AlignsTheDataAndReadsBack) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.safetensors");
  const mx::array grid = mx::reshape(mx::arange(6, mx::float32), {2, 3});
  save_safetensors(
      path,
      {{"flag", mx::array({true, false, true})},
       {"grid", mx::transpose(grid)},
       {"half", mx::astype(grid, mx::bfloat16)},
       {"one", mx::array(7.0f)},
       {"none", mx::zeros({0, 3})},
       {"wide", mx::broadcast_to(mx::array(5, mx::int64), {2, 2})}},
      {{"format", "mlx"}, {"quote", "a\"b\\\n"}});
  const std::string bytes = read_file(path);
  const auto header = read_safetensors_header(bytes, path);
  EXPECT_EQ(header.data_begin % 64, 0u);
  EXPECT_EQ(header.metadata.at("quote"), "a\"b\\\n");
  for (const auto& tensor : header.tensors) {
    EXPECT_EQ(tensor.begin % tensor.dtype.size(), 0u) << tensor.name;
  }
  auto [loaded, metadata] = mx::load_safetensors(path);
  EXPECT_EQ(loaded.size(), 6u);
  EXPECT_EQ(metadata.at("format"), "mlx");
  EXPECT_TRUE(
      mx::array_equal(loaded.at("grid"), mx::transpose(grid)).item<bool>());
  EXPECT_TRUE(mx::array_equal(loaded.at("half"), grid).item<bool>());
  EXPECT_EQ(loaded.at("half").dtype(), mx::bfloat16);
  EXPECT_EQ(loaded.at("one").item<float>(), 7);
  EXPECT_EQ(loaded.at("none").shape(), (mx::Shape{0, 3}));
  EXPECT_TRUE(
      mx::array_equal(loaded.at("wide"), mx::full({2, 2}, 5)).item<bool>());
}

TEST(SaveSafetensors, KeepsTheOrderThatIsAlignedAlready) {
  const auto plan = plan_safetensors(
      {{"w", mx::uint32, {3}},
       {"s", mx::bfloat16, {2}},
       {"v", mx::uint32, {1}}},
      {});
  EXPECT_EQ(plan.tensors[0].name, "w");
  EXPECT_EQ(plan.tensors[1].name, "s");
  EXPECT_EQ(plan.tensors[2].name, "v");
  const auto moved =
      plan_safetensors({{"b", mx::bool_, {3}}, {"w", mx::uint32, {1}}}, {});
  EXPECT_EQ(moved.tensors[0].name, "w");
  EXPECT_EQ(moved.file_bytes, moved.front.size() + 7);
}

TEST(SaveSafetensors, RefusesBadNamesAndTypesAndLeavesNoFile) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.safetensors");
  const mx::array x = mx::zeros({1});
  const auto message =
      [&](const std::vector<std::pair<std::string, mx::array>>& tensors)
      -> std::string {
    try {
      save_safetensors(path, tensors);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(
      message({{"a", x}, {"a", x}}),
      "[save_safetensors] each tensor must have a name of its own, got 'a' "
      "twice.");
  EXPECT_NE(message({{"__metadata__", x}}).find("'__metadata__'."), SIZE_MAX);
  EXPECT_NE(message({{"\xff", x}}).find("must be UTF-8"), SIZE_MAX);
  EXPECT_NE(
      message({{"c", mx::astype(x, mx::complex64)}}).find("got complex64"),
      SIZE_MAX);
  EXPECT_TRUE(folder.empty());
  EXPECT_THROW(
      save_safetensors(folder.file("no/folder"), {{"a", x}}), FileError);
}

TEST(SafetensorsWriter, RemovesWhatIsNotFinishedAndKeepsTheOldFile) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.safetensors");
  write_file(path, "old");
  {
    SafetensorsWriter writer(
        path, plan_safetensors({{"a", mx::uint8, {2}}}, {}));
    writer.append("x", 1);
    EXPECT_THROW(writer.finish(), std::logic_error);
    EXPECT_THROW(writer.append("xyz", 3), std::logic_error);
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.safetensors"});
}

} // namespace
} // namespace zmlx
