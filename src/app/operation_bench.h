// What `bench gemm`, `bench roofline` and `bench attention` share: an open backend with its limits,
// lists of sizes, percentages.
#pragma once

#include <boost/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "app/command.h"
#include "kernels/bench_ops.h"
#include "kernels/open_queue.h"

namespace mantissa {

struct OperationBench {
  const Ops& ops;
  OpenQueue queue;
  const Elem* run_dtype;
  double read_gb_s;  // measured when it was opened
};
// From --device, --dtype, --threads, --isa.
OperationBench open_operation_bench(const Args& args, bool fast_accum);

// "dtype", "read_gb_s", "device", "threads", "version", "commit".
void add_bench_info(boost::json::object& object, const Args& args, const OperationBench& bench);

int64_t size_of(std::string_view digits, std::string_view option);
// "1,64,1024" of an option, each from 1 to 2^20.
std::vector<int64_t> sizes_of(const Args& args, std::string_view option);

// A percentage, or nothing where the limit is not known.
std::string percent_text(double value, double limit);
boost::json::value percent_json(double value, double limit);

// What GemmResult and AttentionResult say in the same words; read_gb_s of 0: no part of memory's.
template <class Result>
void add_figures(boost::json::object& object, const Result& r, double read_gb_s) {
  object["p10_us"] = r.times.p10_us;
  object["p50_us"] = r.times.p50_us;
  object["p90_us"] = r.times.p90_us;
  object["tflops"] = r.tflops();
  object["gb_s"] = r.gb_s();
  object["pct_math_peak"] = percent_json(r.tflops() * 1000, r.math_gops);
  object["pct_mem_peak"] = percent_json(r.gb_s(), read_gb_s);
  object["rms_error"] = r.rms_error;
  object["sampled"] = r.sampled;
}

}  // namespace mantissa
