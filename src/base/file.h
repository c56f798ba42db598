// Reading files through a descriptor: bounded, every short read is an error. Used for everything
// the program reads; no file is memory-mapped (docs/adr/0006-pread-not-mmap.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace mantissa {

// A regular file, open for reading. Move-only. Reads are thread-safe.
class File {
 public:
  // Throws Error naming the path: missing, not readable, not a regular file (a directory, a pipe).
  explicit File(const std::filesystem::path& path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }  // bytes, when it was opened

  // Fills out from the byte `offset` on. Throws Error where the file ends before (also when it was
  // truncated after opening) or the system reports a failure.
  void read(int64_t offset, std::span<std::byte> out) const;
  // The kernel may read ahead in large steps.
  void expect_sequential() const;

 private:
  int fd_ = -1;
  int64_t size_ = 0;
  std::string path_;
};

// The whole file as text. Throws Error where it is larger than bytes_max.
std::string read_file(const std::filesystem::path& path, int64_t bytes_max);

// Whether text is read to its end as it comes instead of from a file: "-" and /dev/stdin are
// standard input, /dev/fd/N what a shell makes of <(...).
bool is_stream(const std::filesystem::path& path);
// All that comes, waiting for it. Throws Error where it cannot be read or is above bytes_max.
std::string read_stream(const std::filesystem::path& path, int64_t bytes_max);

// Text from a file or a user, fit for an error message: control characters and invalid UTF-8
// escaped, cut after about bytes_max bytes. quoted: also between double quotes.
std::string printable(std::string_view text, size_t bytes_max = 400);
std::string quoted(std::string_view text, size_t bytes_max = 80);

}  // namespace mantissa
