// The smallest program over the library: complete MODEL SCHEME PROMPT prints a continuation.
#include <mantissa/llm.h>

#include <cstdlib>
#include <exception>
#include <iostream>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: complete MODEL SCHEME PROMPT\n";
    return 2;
  }
  try {
    mantissa::Llm llm(argv[1], {.quantization = argv[2]});
    const auto answer = llm.generate(argv[3], {.max_tokens = 48, .temperature = 0});
    std::cout << argv[3] << answer.text << '\n';
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
