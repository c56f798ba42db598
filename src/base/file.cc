#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mantissa {

namespace {

std::string system_text(int code) {
  return std::strerror(code);
}

}  // namespace

// O_NONBLOCK: opening a named pipe must not wait for a writer; it means nothing for regular files.
File::File(const std::filesystem::path& path)
    : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)), path_(path.string()) {
  if (fd_ < 0) {
    throw Error(text("cannot open ", printable(path_), ": ", system_text(errno)),
                "check the path and its permissions");
  }
  struct stat status {};
  const bool known = ::fstat(fd_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(fd_);
    throw Error(text(printable(path_), " is not a regular file"), "name a file");
  }
  size_ = status.st_size;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(other.size_), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

void File::read(int64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(fd_, out.data(), out.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw Error(
          text("cannot read ", printable(path_), " at byte ", offset, ": ", system_text(errno)),
          "check the disk and try again", Error::Kind::kRuntime);
    }
    if (got == 0) {
      throw Error(text(printable(path_), " ends at byte ", offset, ", ", out.size(),
                       " bytes too early: it has changed since it was opened"),
                  "leave the file alone while it is read, or get a complete copy");
    }
    offset += got;
    out = out.subspan(static_cast<size_t>(got));
  }
}

void File::expect_sequential() const {
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

std::string read_file(const std::filesystem::path& path, int64_t bytes_max) {
  const File file(path);
  if (file.size() > bytes_max) {
    throw Error(text(printable(file.path()), " has ", file.size(), " bytes; at most ", bytes_max,
                     " are accepted"),
                "check that this is the right file");
  }
  std::string content(static_cast<size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(content)));
  return content;
}

bool is_stream(const std::filesystem::path& path) {
  return path == "-" || path == "/dev/stdin" || path.parent_path() == "/dev/fd";
}

std::string read_stream(const std::filesystem::path& path, int64_t bytes_max) {
  const char* name = path == "-" ? "/dev/stdin" : path.c_str();
  const auto refuse = [&] {
    return Error(text("cannot read ", printable(name), ": ", system_text(errno)),
                 "pipe a text into it, or name a file");
  };
  const int fd = path == "-" ? ::dup(STDIN_FILENO) : ::open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw refuse();
  const struct Closed {
    int fd;
    ~Closed() { ::close(fd); }
  } closed{fd};
  std::string content;
  for (std::vector<char> piece(size_t{1} << 16);;) {
    const ssize_t got = ::read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw refuse();
    if (got == 0) return content;
    content.append(piece.data(), static_cast<size_t>(got));
    if (std::ssize(content) > bytes_max)
      throw Error(text(printable(name), " has more than ", bytes_max, " bytes"),
                  "give a shorter text");
  }
}

namespace {

// Length of the valid UTF-8 sequence at the start of text (not empty); 0 where there is none.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and code points above U+10FFFF (Unicode, table 3-7).
  const unsigned char second = byte(1);
  if (lead == 0xe0 && second < 0xa0) return 0;
  if (lead == 0xed && second > 0x9f) return 0;
  if (lead == 0xf0 && second < 0x90) return 0;
  if (lead == 0xf4 && second > 0x8f) return 0;
  return length;
}

// Appends text, escaped, and empties it, until out has bytes_max bytes; quotes: escape " and \ too.
void append_escaped(std::string& out, std::string_view& text, size_t bytes_max, bool quotes) {
  constexpr char kHex[] = "0123456789abcdef";
  while (!text.empty() && out.size() < bytes_max) {
    const unsigned char c = static_cast<unsigned char>(text[0]);
    const size_t length = std::max<size_t>(utf8_length(text), 1);
    // U+0080 to U+009F are control characters too: c2 80 to c2 9f.
    const bool control = c < 0x20 || c == 0x7f ||
                         (c == 0xc2 && length == 2 && static_cast<unsigned char>(text[1]) < 0xa0);
    if (control || utf8_length(text) == 0) {
      for (const char e : text.substr(0, length)) {
        const unsigned char code = static_cast<unsigned char>(e);
        out += {'\\', 'x', kHex[code >> 4], kHex[code & 15]};
      }
    } else {
      if (quotes && (c == '"' || c == '\\')) out += '\\';
      out += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
}

}  // namespace

std::string printable(std::string_view text, size_t bytes_max) {
  std::string out;
  append_escaped(out, text, bytes_max, false);
  if (!text.empty()) out += "...";
  return out;
}

std::string quoted(std::string_view text, size_t bytes_max) {
  std::string out = "\"";
  append_escaped(out, text, bytes_max + 1, true);
  out += text.empty() ? "\"" : "...\"";
  return out;
}

}  // namespace mantissa
