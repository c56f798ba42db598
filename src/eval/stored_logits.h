// The reference's logits of a whole text, so that schemes are compared with them one after the
// other while its model is not in memory any more. Float32, in a file without a name: it goes with
// the process, whatever happens. Exact, so results equal those of both models side by side.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "eval/perplexity.h"

namespace mantissa {

class StoredLogits {
 public:
  static constexpr int64_t kBytesMax = int64_t{16} << 30;
  // Why a text of so many scored tokens would not be stored; empty: it fits kBytesMax and half of
  // what the folder's disk has left.
  static std::string refusal(int64_t rows, int64_t vocab, const std::filesystem::path& folder);

  // Throws Error where the folder cannot be written.
  StoredLogits(int64_t vocab, const std::filesystem::path& folder);
  ~StoredLogits();
  StoredLogits(const StoredLogits&) = delete;
  StoredLogits& operator=(const StoredLogits&) = delete;

  int64_t rows() const { return rows_; }
  void append(Matrix<const float> logits);
  void read(int64_t row0, Matrix<float> out) const;

 private:
  int fd_ = -1;
  int64_t vocab_ = 0, rows_ = 0;
};

// As window_nlls(); the logits are stored too.
std::vector<float> store_windows(const EngineModel& model, std::span<const Window> windows,
                                 StoredLogits& store, ThreadPool& pool,
                                 const WindowProgress& progress = {});

// As compare_windows() with the model whose logits are stored, of the same windows.
ComparedScores compare_with_stored(const EngineModel& model, const StoredLogits& base,
                                   std::span<const Window> windows, ThreadPool& pool,
                                   const WindowProgress& progress = {});

}  // namespace mantissa
