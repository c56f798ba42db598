// encode_lines FILE: reads texts as hexadecimal lines, writes the CRC-32 of their ids, a line each.
// For tools/compare_tokenizers.py, which needs no JSON and no ids, only whether they are equal.
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "golden.h"
#include "text/tokenizer.h"

int main(int argc, char** argv) {
  using namespace mantissa;
  if (argc != 2) return 2;
  try {
    const std::string name = argv[1];
    const std::string bytes = read_file(name, 1 << 28);
    const Tokenizer tokenizer = name.ends_with(".json")
                                    ? Tokenizer::from_json(bytes, "", name)
                                    : Tokenizer::from_sentencepiece(bytes, "", name);
    std::string text;
    for (std::string line; std::getline(std::cin, line);) {
      text.clear();
      for (size_t i = 0; i + 1 < line.size(); i += 2) {
        text.push_back(static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16)));
      }
      std::puts(crc(tokenizer.encode(text, false)).c_str());
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
