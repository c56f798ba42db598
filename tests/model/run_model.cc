#include "run_model.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>

#include "base/error.h"

namespace mantissa::test {
namespace {

std::string slurp(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error(text("cannot read ", file.string()), "run from a whole checkout");
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<float> decode_base64(std::string_view in) {
  std::array<int, 256> value{};
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    value[static_cast<uint8_t>(kAlphabet[i])] = static_cast<int>(i);
  }
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : in) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(value[static_cast<uint8_t>(c)]);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<uint8_t>(bits >> count));
    }
  }
  std::vector<float> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), out.size() * 4);
  return out;
}

std::vector<int32_t> to_ids(const boost::json::value& v) {
  std::vector<int32_t> ids;
  for (const auto& id : v.as_array()) ids.push_back(id.to_number<int32_t>());
  return ids;
}

GoldenSequence to_sequence(const boost::json::value& v) {
  const boost::json::value* context = v.as_object().if_contains("context");
  return {.ids = to_ids(v.at("ids")),
          .first = v.at("first").to_number<int32_t>(),
          .context = context != nullptr ? context->to_number<int64_t>() : 0,
          .logits = decode_base64(v.at("logits").as_string())};
}

}  // namespace

std::vector<HandSequence> make_sequences(const Model& model, int count) {
  std::vector<HandSequence> sequences(static_cast<size_t>(count));
  for (int64_t page = 0; page < model.limits().kv_pages; ++page) {
    auto& pages = sequences[static_cast<size_t>(page % count)].pages;
    const int64_t most = (model.limits().model_len + model.limits().kv_page_tokens - 1) /
                         model.limits().kv_page_tokens;
    if (static_cast<int64_t>(pages.size()) < most) pages.push_back(static_cast<int32_t>(page));
  }
  return sequences;
}

std::vector<int32_t> advance(Model& model, std::span<HandSequence> sequences,
                             const std::vector<std::vector<int32_t>>& tokens) {
  const auto page_tokens = static_cast<int32_t>(model.limits().kv_page_tokens);
  Model::Step step;
  step.query_start.push_back(0);
  std::vector<int32_t> first_rows;
  for (size_t s = 0; s < sequences.size(); ++s) {
    first_rows.push_back(static_cast<int32_t>(step.token_ids.size()));
    if (tokens[s].empty()) continue;
    HandSequence& sequence = sequences[s];
    for (const int32_t id : tokens[s]) {
      step.token_ids.push_back(id);
      step.positions.push_back(sequence.length);
      step.slots.push_back(sequence.pages[static_cast<size_t>(sequence.length / page_tokens)] *
                               page_tokens +
                           sequence.length % page_tokens);
      ++sequence.length;
    }
    step.query_start.push_back(static_cast<int32_t>(step.token_ids.size()));
    step.context_len.push_back(sequence.length);
    step.block_tables.push_back(sequence.pages);
  }
  model.forward(step);
  return first_rows;
}

std::vector<float> logits_of_rows(Model& model, int32_t first, int32_t count) {
  std::vector<int32_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), first);
  std::vector<float> all;
  const auto most = static_cast<size_t>(model.limits().logits_rows);
  for (size_t at = 0; at < rows.size(); at += most) {
    const auto some = std::span(rows).subspan(at, std::min(most, rows.size() - at));
    const Matrix<const float> logits = model.logits(some);
    all.insert(all.end(), logits.data, logits.data + logits.rows * logits.cols);
  }
  return all;
}

std::vector<float> prefill_logits(Model& model, const std::vector<int32_t>& ids) {
  std::vector<HandSequence> one = make_sequences(model, 1);
  advance(model, one, {ids});
  return logits_of_rows(model, 0, static_cast<int32_t>(ids.size()));
}

int32_t argmax(std::span<const float> values) {
  return static_cast<int32_t>(std::ranges::max_element(values) - values.begin());
}

Golden read_golden(const std::filesystem::path& file) {
  const boost::json::value root = boost::json::parse(slurp(file));
  Golden golden;
  for (const auto& s : root.at("sequences").as_array()) {
    golden.sequences.push_back(to_sequence(s));
  }
  if (const boost::json::value* schemes = root.as_object().if_contains("schemes")) {
    for (const auto& member : schemes->as_object()) {
      golden.schemes.emplace(member.key(), to_sequence(member.value()));
    }
  }
  if (const auto* greedy = root.as_object().if_contains("greedy")) {
    golden.greedy_prompt = to_ids(greedy->at("prompt"));
    golden.greedy_ids = to_ids(greedy->at("ids"));
  }
  return golden;
}

std::vector<std::filesystem::path> golden_models() {
  std::vector<std::filesystem::path> folders;
  const std::filesystem::path root =
      std::filesystem::path(MANTISSA_SOURCE_DIR) / "tests/golden/models";
  for (const auto& entry : std::filesystem::directory_iterator(root))
    folders.push_back(entry.path());
  std::ranges::sort(folders);
  return folders;
}

double rms_gap(std::span<const float> a, std::span<const float> b) {
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += std::pow(double{a[i]} - double{b[i]}, 2);
    size += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(error / size);
}

double relative_gap(std::span<const float> a, std::span<const float> b) {
  double gap = a.size() == b.size() ? 0 : HUGE_VAL, largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - b[i]);
    gap = d <= gap ? gap : (std::isnan(d) ? HUGE_VAL : d);  // a NaN is infinitely far
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return gap / largest;
}

Model load_model(const ModelOptions& options) {
  Model model(options);
  model.load();
  return model;
}

std::vector<Backend> backends() {
  std::vector<Backend> all{{"ref", "auto"}};
  const Backend candidates[] = {
      {"cpu", "avx512"}, {"cpu", "avx2"}, {"cpu", "portable"}, {"cuda", "auto"}};
  for (const Backend& candidate : candidates) {
    try {
      const Ops& ops = find_ops(candidate.device);
      ops.close(ops.open({.threads = 1, .isa = candidate.isa, .scratch_tokens = 1}));
      all.push_back(candidate);
    } catch (const Error&) {
      continue;  // this machine or this build lacks it
    }
  }
  return all;
}

}  // namespace mantissa::test
