// Reads the components of tokenizer.json that become steps: normalizers, pre-tokenizers, decoders.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/decoder.h"
#include "text/steps.h"

namespace mantissa {

// file: what errors call the document. All throw Error for a type or key that is not supported.
void read_normalizer(const json::Value& value, const std::string& file, std::vector<Step>& out);
void read_pre_tokenizer(const json::Value& value, const std::string& file, std::vector<Step>& out);
void read_decoder(const json::Value& value, const std::string& file, std::vector<DecodeStep>& out);

// Throws Error for a key of the object that is not in the list: what is not read could change ids.
void expect_only_keys(const json::Value& object, std::initializer_list<std::string_view> keys);

// The row of a table whose `type` is that of the object. Throws Error naming the types there are.
template <class Row, size_t N>
const Row& find_component(const Row (&rows)[N], const json::Value& object) {
  const json::Value type = object.at("type");
  std::string known;
  for (const Row& row : rows) {
    if (type.as_string() == row.type) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.type);
  }
  type.fail("a supported type (" + known + ")");
}

}  // namespace mantissa
