// `mantissa bench gemm` and `mantissa bench roofline`: linear layers by themselves.
#include <algorithm>
#include <boost/json.hpp>

#include "app/command.h"
#include "app/load.h"
#include "app/operation_bench.h"
#include "app/output.h"
#include "base/error.h"
#include "base/list.h"
#include "bench/gemm.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Option kGemmOptions[] = {
    {"-q,--schemes", OptionType::kText, "bf16,ptpc_fp8", "LIST", "schemes, separated by commas"},
    {"--tokens", OptionType::kText, "1,64,1024", "LIST", "M: rows of activations"},
    {"--layers", OptionType::kText, "6144x4096,4096x4096,28672x4096,4096x14336", "LIST", "N x K of the weights; the default is Llama-3.1-8B's"},
    {"--fast-accum", OptionType::kFlag, "", "", "FP8 products summed in the tensor cores' short accumulator (CUDA only)"},
    {"--no-peers", OptionType::kFlag, "", "", "no times of other libraries"},
    {"--no-library-kernels", OptionType::kFlag, "", "", "as --no-peers: linear layers never run in a library"},
};
constexpr Option kRooflineOptions[] = {
    {"-q,--schemes", OptionType::kText, "ptpc_fp8,fp8,fp8_block,int8", "LIST", "schemes, separated by commas, each against the run dtype"},
    {"--sizes", OptionType::kText, "1024,2048,4096,8192,16384", "LIST", "M = K = N"},
    {"--fast-accum", OptionType::kFlag, "", "", "FP8 products summed in the tensor cores' short accumulator (CUDA only)"},
    {"--no-library-kernels", OptionType::kFlag, "", "", "linear layers never run in a library"},
};
// clang-format on

struct Layer {
  int64_t n, k;
};
Layer layer_of(std::string_view item) {
  const size_t x = item.find('x');
  if (x == std::string_view::npos)
    throw Error(text("--layers: '", item, "' has no x"), "write N x K, as in 4096x14336");
  return {size_of(item.substr(0, x), "--layers"), size_of(item.substr(x + 1), "--layers")};
}

boost::json::object gemm_json(const GemmCase& c, const GemmResult& r, double read_gb_s) {
  boost::json::object peers, refused;
  for (const PeerTime& peer : r.peers) {
    if (peer.why_not.empty()) {
      peers[peer.name] = peer.us;
    } else {
      refused[peer.name] = peer.why_not;
    }
  }
  boost::json::object object{
      {"scheme", c.scheme.name}, {"m", c.m}, {"n", c.n}, {"k", c.k}, {"kernel", r.kernel}};
  add_figures(object, r, read_gb_s);
  object["peer"] = std::move(peers);
  object["peer_refused"] = std::move(refused);
  return object;
}

std::vector<std::string> gemm_row(const GemmCase& c, const GemmResult& r, double read_gb_s) {
  std::string peers;
  for (const PeerTime& peer : r.peers)
    peers += text(peers.empty() ? "" : ", ", peer.name, " ",
                  peer.why_not.empty() ? fixed(peer.us, 1) : peer.why_not);
  return {c.scheme.name,
          text(c.m),
          text(c.n),
          text(c.k),
          r.kernel,
          fixed(r.times.p50_us, 1),
          fixed(r.tflops(), 2),
          fixed(r.gb_s(), 0),
          percent_text(r.tflops() * 1000, r.math_gops),
          percent_text(r.gb_s(), read_gb_s),
          text(r.rms_error),
          peers.empty() ? "-" : peers};
}

std::vector<Scheme> schemes_of(const Args& args) {
  std::vector<Scheme> schemes;
  for (const std::string_view name : split_list(args.text("schemes")))
    schemes.push_back(scheme_of("--schemes", name));
  return schemes;
}

void run_gemm(const Args& args) {
  const std::vector<Scheme> schemes = schemes_of(args);
  const std::vector<int64_t> tokens = sizes_of(args, "tokens");
  std::vector<Layer> layers;
  for (const std::string_view item : split_list(args.text("layers")))
    layers.push_back(layer_of(item));
  const OperationBench bench = open_operation_bench(args, args.flag("fast-accum"));
  const bool peers = !args.flag("no-peers") && !args.flag("no-library-kernels");
  Table table{{"scheme", "M", "N", "K", "kernel", "us", "TFLOP/s", "GB/s", "% math", "% memory",
               "rms error", "peers, us"},
              {}};
  for (const Scheme& scheme : schemes) {
    for (const Layer& layer : layers) {
      for (const int64_t m : tokens) {
        const GemmCase c{scheme, bench.run_dtype, m, layer.n, layer.k};
        const GemmResult r = measure_gemm(bench.ops, bench.queue.get(), c, peers,
                                          static_cast<uint64_t>(args.integer("seed")));
        const double read_gb_s = r.rotated ? bench.read_gb_s : 0;
        table.rows.push_back(gemm_row(c, r, read_gb_s));
        if (!args.flag("json")) continue;
        boost::json::object object = gemm_json(c, r, read_gb_s);
        add_bench_info(object, args, bench);
        object["fast_accum"] = args.flag("fast-accum");
        print_json(object);
      }
    }
  }
  if (!args.flag("json")) print_text(markdown(table));
}

// One size and scheme against the run dtype.
struct SpeedUp {
  double roofline = 0, observed = 0;
};
void run_roofline(const Args& args) {
  const std::vector<Scheme> schemes = schemes_of(args);
  const std::vector<int64_t> sizes = sizes_of(args, "sizes");
  const OperationBench bench = open_operation_bench(args, args.flag("fast-accum"));
  Queue* queue = bench.queue.get();
  const auto seed = static_cast<uint64_t>(args.integer("seed"));
  const auto limit_of = [&](const Scheme& s) {
    const double gops = find_bench_ops(bench.ops)->math_gops(s, *bench.run_dtype, queue);
    if (!(gops > 0))
      throw Error(
          text("the arithmetic peak of ", s.name, " is not known on ", bench.ops.describe(queue)),
          "use `bench gemm`, which needs none");
    return gops;
  };
  Table table{{"fwd_M", "fwd_K", "fwd_N"}, {}};
  for (const Scheme& s : schemes) {
    table.header.push_back(text("r_", s.name, "_gemm_and_ovhd_spdp"));
    table.header.push_back(text("b_", s.name, "_e2e_spdp"));
  }
  const Scheme plain = parse_scheme("bf16");
  for (const int64_t n : sizes) {
    const GemmCase high{plain, bench.run_dtype, n, n, n};
    const double roof = roofline_of(high, bench.read_gb_s, limit_of(plain)).total_s();
    const double observed = measure_activation_and_linear(bench.ops, queue, high, seed).p50_us;
    std::vector<std::string> row{text(n), text(n), text(n)};
    for (const Scheme& s : schemes) {
      const GemmCase c{s, bench.run_dtype, n, n, n};
      const RunTimes t = measure_activation_and_linear(bench.ops, queue, c, seed);
      const SpeedUp up{roof / roofline_of(c, bench.read_gb_s, limit_of(s)).total_s(),
                       observed / t.p50_us};
      row.push_back(fixed(up.roofline, 2));
      row.push_back(fixed(up.observed, 2));
      if (!args.flag("json")) continue;
      boost::json::object object{{"scheme", s.name},
                                 {"fwd_M", n},
                                 {"fwd_K", n},
                                 {"fwd_N", n},
                                 {"r_gemm_and_ovhd_spdp", up.roofline},
                                 {"b_e2e_spdp", up.observed},
                                 {"b_e2e_us", t.p50_us},
                                 {"b_run_dtype_e2e_us", observed},
                                 {"math_gops", limit_of(s)}};
      add_bench_info(object, args, bench);
      object["fast_accum"] = args.flag("fast-accum");
      print_json(object);
    }
    table.rows.push_back(std::move(row));
  }
  if (!args.flag("json")) print_text(markdown(table));
}

}  // namespace

const Verb kBenchGemmVerb = {
    .name = "bench gemm",
    .summary = "linear layers by themselves: speed, how near to the limits, error, other libraries",
    .details =
        "Weights are rotated over 160 MiB, more than a GPU's L2 (of a CPU's L3, see `mantissa "
        "devices`); where 192 copies are smaller than that, % memory is left out. Activations are "
        "quantized before, not timed. On cuda runs are captured in graphs, and cuBLASLt, where it "
        "is found, is timed "
        "beside them. Sampled results are compared with float64 sums of the same codes: rms_error "
        "has one rounding to the run dtype in it.",
    .examples =
        "mantissa bench gemm --device cuda -q ptpc_fp8,fp8_block,int8 --tokens 1,1024,8192\n"
        "mantissa bench gemm -q int8 --tokens 16 --layers 2048x2048 --json",
    .groups = kCommonOnly,
    .options = kGemmOptions,
    .run = run_gemm,
};

const Verb kBenchRooflineVerb = {
    .name = "bench roofline",
    .summary = "speed-up of quantized activation -> linear: expected from limits, and observed",
    .details =
        "torchao's columns: r_..._spdp is what bandwidth and arithmetic peaks allow, b_..._spdp "
        "what was measured, both against the run dtype. torchao's ReLU is this engine's own "
        "activation with the same bytes, rms_norm; its quantized form leaves in the same pass "
        "where the scheme allows.",
    .examples =
        "mantissa bench roofline --device cuda\n"
        "mantissa bench roofline -q int8 --sizes 256,512",
    .groups = kCommonOnly,
    .options = kRooflineOptions,
    .run = run_roofline,
};

}  // namespace mantissa
