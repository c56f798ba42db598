#include "eval/stored_logits.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/units.h"

namespace mantissa {
namespace {

Error file_error(const std::string& what) {
  return Error(text("the reference's logits: ", what, ": ", std::strerror(errno)),
               "free some space in the folder of temporary files, or set TMPDIR to another one",
               Error::Kind::kRuntime);
}

// Of a product that may be above int64_t.
std::string bytes_text(double bytes) {
  return human_bytes(static_cast<int64_t>(std::min(bytes, 9e18)));
}

int64_t row_bytes(int64_t vocab) {
  return vocab * static_cast<int64_t>(sizeof(float));
}

}  // namespace

std::string StoredLogits::refusal(int64_t rows, int64_t vocab,
                                  const std::filesystem::path& folder) {
  const double bytes = static_cast<double>(rows) * static_cast<double>(row_bytes(vocab));
  if (bytes > static_cast<double>(kBytesMax))
    return text("they take ", bytes_text(bytes), ", more than ", human_bytes(kBytesMax));
  std::error_code failed;
  const std::filesystem::space_info space = std::filesystem::space(folder, failed);
  if (!failed && bytes > static_cast<double>(space.available) / 2)
    return text("they take ", bytes_text(bytes), ", more than half of what ", folder.string(),
                " has left");
  return "";
}

StoredLogits::StoredLogits(int64_t vocab, const std::filesystem::path& folder) : vocab_(vocab) {
  std::string name = (folder / "mantissa-logits-XXXXXX").string();
  fd_ = mkostemp(name.data(), O_CLOEXEC);
  if (fd_ < 0) throw file_error(text("cannot make a file in ", folder.string()));
  unlink(name.c_str());
}

StoredLogits::~StoredLogits() {
  close(fd_);
}

void StoredLogits::append(Matrix<const float> logits) {
  check(logits.cols == vocab_, "StoredLogits: rows of one vocabulary");
  for (int64_t r = 0; r < logits.rows; ++r, ++rows_) {
    const auto* from = reinterpret_cast<const char*>(logits.row(r).data());
    int64_t at = rows_ * row_bytes(vocab_), left = row_bytes(vocab_);
    while (left > 0) {
      const ssize_t written = pwrite(fd_, from, static_cast<size_t>(left), at);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) throw file_error("cannot write them");
      from += written;
      at += written;
      left -= written;
    }
  }
}

void StoredLogits::read(int64_t row0, Matrix<float> out) const {
  check(out.cols == vocab_ && row0 >= 0 && row0 + out.rows <= rows_, "StoredLogits: stored rows");
  for (int64_t r = 0; r < out.rows; ++r) {
    auto* to = reinterpret_cast<char*>(out.row(r).data());
    int64_t at = (row0 + r) * row_bytes(vocab_), left = row_bytes(vocab_);
    while (left > 0) {
      const ssize_t got = pread(fd_, to, static_cast<size_t>(left), at);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw file_error("cannot read them back");
      to += got;
      at += got;
      left -= got;
    }
  }
}

}  // namespace mantissa
