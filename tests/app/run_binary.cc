#include "run_binary.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace mantissa {
namespace {

constexpr unsigned kSecondsMax = 240;

std::string temporary(const char* name) {
  return testing::TempDir() + "mantissa_" + std::to_string(getpid()) + "_" + name;
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  std::filesystem::remove(path);
  return all.str();
}

void redirect(const std::string& path, int to, int flags) {
  const int from = open(path.c_str(), flags, 0600);
  if (from < 0 || dup2(from, to) < 0) _exit(126);
}

RunResult run(std::vector<std::string> words) {
  const std::string out = temporary("out"), err = temporary("err");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(kSecondsMax);
    redirect("/dev/null", STDIN_FILENO, O_RDONLY);
    redirect(out, STDOUT_FILENO, O_WRONLY | O_CREAT | O_TRUNC);
    redirect(err, STDERR_FILENO, O_WRONLY | O_CREAT | O_TRUNC);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  RunResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = content_of(out);
  result.err = content_of(err);
  return result;
}

}  // namespace

RunResult run_mantissa(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {MANTISSA_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return run(std::move(words));
}

RunResult run_shell(const std::string& line) {
  return run({"/bin/sh", "-c", "MANTISSA=" MANTISSA_BINARY "\n" + line});
}

std::string demo_model() {
  return MANTISSA_SOURCE_DIR "/models/wiki-6m";
}

}  // namespace mantissa
