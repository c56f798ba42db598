#include "eval/windows.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace mantissa {

std::vector<Window> perplexity_windows(std::span<const int32_t> tokens, int32_t bos, int64_t ctx,
                                       int64_t stride) {
  if (ctx < 1) throw Error(text("windows of ", ctx, " tokens"), "use --ctx 1 or more");
  if (stride == 0) stride = ctx;
  if (stride < 1 || stride > ctx)
    throw Error(text("--stride ", stride, " with windows of ", ctx, " tokens"),
                text("use a stride from 1 to ", ctx, "; a larger one would leave tokens out"));
  const int64_t total = std::ssize(tokens);
  std::vector<Window> out;
  int64_t scored = 0;
  for (int64_t begin = 0; scored < total; begin += stride) {
    const int64_t end = std::min(begin + ctx, total);
    Window window;
    window.inputs.reserve(static_cast<size_t>(end - begin));
    window.inputs.push_back(bos);
    window.inputs.insert(window.inputs.end(), tokens.begin() + begin, tokens.begin() + end - 1);
    window.targets.assign(tokens.begin() + scored, tokens.begin() + end);
    scored = end;
    out.push_back(std::move(window));
  }
  return out;
}

std::vector<Window> rolling_windows(std::span<const int32_t> tokens, int32_t prefix,
                                    int64_t length_max) {
  if (length_max < 1) throw Error(text("windows of ", length_max, " tokens"), "use 1 or more");
  const int64_t total = std::ssize(tokens);
  std::vector<Window> out;
  for (int64_t scored = 0; scored < total;) {
    const int64_t end = std::min(scored + length_max, total);
    Window window;
    if (scored == 0) {
      window.inputs.push_back(prefix);
      window.inputs.insert(window.inputs.end(), tokens.begin(), tokens.begin() + end - 1);
    } else {
      window.inputs.assign(tokens.begin() + end - 1 - length_max, tokens.begin() + end - 1);
    }
    window.targets.assign(tokens.begin() + scored, tokens.begin() + end);
    scored = end;
    out.push_back(std::move(window));
  }
  return out;
}

namespace {

int64_t pages_for(int64_t tokens, int64_t page_tokens) {
  return (tokens + page_tokens - 1) / page_tokens;
}

// The tightest limits of several models.
Model::Limits common_limits(std::span<const EngineModel> models) {
  Model::Limits out = models.front().limits;
  for (const EngineModel& model : models) {
    const Model::Limits& other = model.limits;
    check(other.vocab == out.vocab, "score_windows: models of one vocabulary");
    check(other.kv_page_tokens == out.kv_page_tokens, "score_windows: pages of one size");
    out.tokens = std::min(out.tokens, other.tokens);
    out.sequences = std::min(out.sequences, other.sequences);
    out.logits_rows = std::min(out.logits_rows, other.logits_rows);
    out.model_len = std::min(out.model_len, other.model_len);
    out.kv_pages = std::min(out.kv_pages, other.kv_pages);
  }
  return out;
}

void check_windows(std::span<const Window> windows, const Model::Limits& limits) {
  const int64_t kv_tokens = limits.kv_pages * limits.kv_page_tokens;
  for (const Window& window : windows) {
    const int64_t length = std::ssize(window.inputs);
    check(window.targets.size() <= window.inputs.size(), "Window: an input for each target");
    if (length > limits.model_len)
      throw Error(text("a window of ", length, " tokens, but the model's context is ",
                       limits.model_len, " tokens"),
                  text("use windows of at most ", limits.model_len, " tokens"));
    if (length > kv_tokens)
      throw Error(text("a window of ", length, " tokens, but the KV cache holds ", kv_tokens),
                  "use shorter windows or a larger KV cache");
  }
}

// Packs windows into steps: pieces in order until tokens, sequences or pages run out. A window may
// be split between steps; its pages stay until its last piece has run.
class Packer {
 public:
  struct Piece {
    size_t window;
    int64_t first, count;  // inputs
  };

  Packer(std::span<const Window> windows, const Model::Limits& limits)
      : windows_(windows), limits_(limits), pages_(windows.size()) {
    for (int64_t page = limits.kv_pages - 1; page >= 0; --page)
      free_.push_back(static_cast<int32_t>(page));
  }

  // The next step's pieces; empty when all windows have run.
  const std::vector<Piece>& next() {
    retire();
    pieces_.clear();
    for (int64_t used = 0; used < limits_.tokens && next_window_ < windows_.size();) {
      const int64_t length = std::ssize(windows_[next_window_].inputs);
      if (std::ssize(pieces_) == limits_.sequences || !take_pages(next_window_, length)) break;
      const int64_t count = std::min(length - next_input_, limits_.tokens - used);
      pieces_.push_back({next_window_, next_input_, count});
      used += count;
      next_input_ += count;
      if (next_input_ < length) break;
      ++next_window_;
      next_input_ = 0;
    }
    check(next_window_ == windows_.size() || !pieces_.empty(), "score_windows: a step has tokens");
    return pieces_;
  }

  Model::Step step() const {
    Model::Step out;
    out.query_start.push_back(0);
    for (const Piece& piece : pieces_) {
      const Window& window = windows_[piece.window];
      const std::vector<int32_t>& pages = pages_[piece.window];
      for (int64_t i = piece.first; i < piece.first + piece.count; ++i) {
        const int64_t page = pages[static_cast<size_t>(i / limits_.kv_page_tokens)];
        out.token_ids.push_back(window.inputs[static_cast<size_t>(i)]);
        out.positions.push_back(static_cast<int32_t>(i));
        out.slots.push_back(
            static_cast<int32_t>(page * limits_.kv_page_tokens + i % limits_.kv_page_tokens));
      }
      out.query_start.push_back(static_cast<int32_t>(out.token_ids.size()));
      out.context_len.push_back(static_cast<int32_t>(piece.first + piece.count));
      out.block_tables.push_back(pages);
    }
    return out;
  }

 private:
  bool take_pages(size_t window, int64_t length) {
    if (!pages_[window].empty() || length == 0) return true;
    const size_t wanted = static_cast<size_t>(pages_for(length, limits_.kv_page_tokens));
    if (wanted > free_.size()) return false;
    pages_[window].assign(free_.end() - static_cast<std::ptrdiff_t>(wanted), free_.end());
    free_.resize(free_.size() - wanted);
    return true;
  }

  // Gives back the pages of windows that ended in the last step.
  void retire() {
    for (const Piece& piece : pieces_) {
      if (piece.first + piece.count < std::ssize(windows_[piece.window].inputs)) continue;
      std::vector<int32_t>& pages = pages_[piece.window];
      free_.insert(free_.end(), pages.begin(), pages.end());
      pages = {};
    }
  }

  std::span<const Window> windows_;
  Model::Limits limits_;
  std::vector<std::vector<int32_t>> pages_;  // of each window, while it runs
  std::vector<int32_t> free_;
  std::vector<Piece> pieces_;
  size_t next_window_ = 0;
  int64_t next_input_ = 0;
};

// The scored rows of one step.
struct StepRows {
  std::vector<int32_t> rows, targets, windows;
};

StepRows scored_rows(const std::vector<Packer::Piece>& pieces, std::span<const Window> windows) {
  StepRows out;
  int64_t row = 0;
  for (const Packer::Piece& piece : pieces) {
    const Window& window = windows[piece.window];
    const int64_t unscored = std::ssize(window.inputs) - std::ssize(window.targets);
    for (int64_t i = piece.first; i < piece.first + piece.count; ++i, ++row) {
      if (i < unscored) continue;
      out.rows.push_back(static_cast<int32_t>(row));
      out.targets.push_back(window.targets[static_cast<size_t>(i - unscored)]);
      out.windows.push_back(static_cast<int32_t>(piece.window));
    }
  }
  return out;
}

}  // namespace

void score_windows(std::span<const EngineModel> models, std::span<const Window> windows,
                   const RowSink& sink, const WindowProgress& progress) {
  check(!models.empty(), "score_windows: a model");
  check(windows.size() < static_cast<size_t>(std::numeric_limits<int32_t>::max()),
        "score_windows: windows are counted in 32 bits");
  const Model::Limits limits = common_limits(models);
  check_windows(windows, limits);
  int64_t total = 0, done = 0;
  for (const Window& window : windows) total += std::ssize(window.targets);
  const size_t chunk_max = static_cast<size_t>(limits.logits_rows);
  std::vector<Matrix<const float>> logits(models.size());
  Packer packer(windows, limits);
  for (;;) {
    const std::vector<Packer::Piece>& pieces = packer.next();
    if (pieces.empty()) return;
    const Model::Step step = packer.step();
    for (const EngineModel& model : models) model.forward(step);
    const StepRows scored = scored_rows(pieces, windows);
    for (size_t first = 0; first < scored.rows.size(); first += chunk_max) {
      const size_t count = std::min(chunk_max, scored.rows.size() - first);
      const auto part = [&](const std::vector<int32_t>& all) {
        return std::span<const int32_t>(all).subspan(first, count);
      };
      for (size_t m = 0; m < models.size(); ++m) logits[m] = models[m].logits(part(scored.rows));
      sink({part(scored.targets), part(scored.windows), logits});
      done += static_cast<int64_t>(count);
      if (progress) progress(done, total);
    }
  }
}

int64_t window_kv_tokens(int64_t length_max, int64_t tokens_max, int64_t sequences_max) {
  constexpr int64_t kPageTokensMax = 64;  // each sequence's last page may be nearly empty
  const int64_t sequences =
      std::min(sequences_max, tokens_max / std::max<int64_t>(length_max, 1) + 2);
  return sequences * (length_max + kPageTokensMax);
}

}  // namespace mantissa
