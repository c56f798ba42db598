#include "app/operation_bench.h"

#include <boost/json.hpp>
#include <charconv>

#include "app/output.h"
#include "app/version.h"
#include "base/error.h"
#include "base/list.h"
#include "base/thread_pool.h"
#include "model/model.h"

namespace mantissa {
namespace {

constexpr int64_t kSizeMax = 1 << 20;

}  // namespace

int64_t size_of(std::string_view digits, std::string_view option) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (code != std::errc() || end != digits.data() + digits.size() || value < 1 || value > kSizeMax)
    throw Error(text(option, ": '", digits, "' is no size"), text("use 1 to ", kSizeMax));
  return value;
}

std::vector<int64_t> sizes_of(const Args& args, std::string_view option) {
  std::vector<int64_t> sizes;
  for (const std::string_view item : split_list(args.text(option)))
    sizes.push_back(size_of(item, text("--", option)));
  if (sizes.empty()) throw Error(text("--", option, " is empty"), "name sizes, as in 1,64");
  return sizes;
}

OperationBench open_operation_bench(const Args& args, bool fast_accum) {
  const std::string& name = args.text("device");
  const Ops& ops = find_ops(name == "auto" ? "cpu" : name);
  if (find_bench_ops(ops) == nullptr)
    throw Error(text("--device ", name, " is not timed"), "use --device cpu or cuda");
  if (fast_accum && ops.name != "cuda")
    throw Error(text("--fast-accum has no effect on ", ops.name), "leave it out");
  OpenQueue queue = open_queue(ops, {.threads = static_cast<int>(args.integer("threads")),
                                     .isa = args.text("isa"),
                                     .fast_accum = fast_accum,
                                     .scratch_tokens = kSizeMax / 64});
  const std::string& dtype = args.text("dtype");
  const Elem* run = dtype == "float16" ? &kF16 : dtype == "float32" ? &kF32 : &kBF16;
  const double read = ops.read_gb_s(queue.get());
  return {ops, std::move(queue), run, read};
}

void add_bench_info(boost::json::object& object, const Args& args, const OperationBench& bench) {
  object["dtype"] = dtype_name(*bench.run_dtype);
  object["read_gb_s"] = bench.read_gb_s;
  object["device"] = bench.ops.describe(bench.queue.get());
  object["threads"] = args.integer("threads") > 0 ? args.integer("threads") : usable_cores();
  object["version"] = std::string(version());
  object["commit"] = std::string(commit());
}

std::string percent_text(double value, double limit) {
  return limit > 0 ? fixed(100 * value / limit, 1) : "-";
}

boost::json::value percent_json(double value, double limit) {
  return limit > 0 ? boost::json::value(100 * value / limit) : boost::json::value(nullptr);
}

}  // namespace mantissa
