// `mantissa devices`: where models can run here, and what the hardware reaches.
#include <boost/json.hpp>

#include "app/command.h"
#include "app/help.h"
#include "app/load.h"
#include "app/output.h"
#include "app/queue.h"
#include "app/version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/thread_pool.h"
#include "device/cpu_features.h"
#include "device/peaks.h"
#include "kernels/cpu/peaks.h"
#include "kernels/ops.h"

namespace mantissa {
namespace {

Table backends(const Args& args) {
  Table table{{"device", "runs as"}, {}};
  for (const Ops* ops : all_ops()) {
    if (args.text("device") != "auto" && args.text("device") != ops->name) continue;
    try {
      const OpenQueue queue = open_queue(*ops, args);
      table.rows.push_back({std::string(ops->name), ops->describe(queue.get())});
    } catch (const Error& e) {
      if (args.text("device") != "auto") throw;
      table.rows.push_back({std::string(ops->name), text("cannot run: ", e.found)});
    }
  }
  return table;
}

// "31.2 GB/s with 1 thread, 59.8 with 2".
std::string read_text(const Peaks& peaks) {
  std::string out;
  for (size_t t = 0; t < peaks.read_gb_s.size(); ++t) {
    out += text(t == 0 ? "" : ", ", fixed(peaks.read_gb_s[t], 1), t == 0 ? " GB/s with " : " with ",
                t + 1, t == 0 ? " thread" : "");
  }
  return out;
}
std::string rate_text(double rate, const char* unit) {
  return rate > 0 ? text(fixed(rate, 0), " ", unit) : "no such instruction";
}

// clang-format off
constexpr Option kOptions[] = {
    {"--forget-peaks", OptionType::kFlag, "", "", "keep what is measured now, also where it is below what was kept"},
};
// clang-format on

// What benchmarks will read, saved; a rate far below the kept one is named. False where it cannot
// be written.
bool keep_peaks(const Args& args, const Peaks& now) {
  const std::optional<Peaks> before = load_peaks(now.machine);
  if (!before || args.flag("forget-peaks")) return save_peaks(now);
  std::vector<std::string> far_below;
  const Peaks kept = merged_peaks(*before, now, far_below);
  if (!far_below.empty())
    notice(args,
           text("far below an earlier measurement, which stays (--forget-peaks replaces it): ",
                join(far_below, "; "), "; is the machine busy?"));
  return save_peaks(kept);
}

void run(const Args& args) {
  const CpuFeatures cpu = read_cpu_features();
  const Table table = backends(args);
  const int threads =
      args.integer("threads") > 0 ? static_cast<int>(args.integer("threads")) : usable_cores();
  const OpenQueue queue = open_queue(find_ops("cpu"), args);
  const Peaks peaks = cpu::measure_machine_peaks(queue.get());
  const ThreadTimes times = measure_threads(threads);
  const std::string file = peaks_file(peaks.machine).string();
  const bool kept = keep_peaks(args, peaks);
  if (!kept) {
    notice(args, text("the measurement is not kept: ", quoted(file),
                      " cannot be written; benchmarks will measure again"));
  }
  if (args.flag("json")) {
    boost::json::array rows;
    for (const std::vector<std::string>& row : table.rows)
      rows.push_back(
          boost::json::object{{"device", row[0]},
                              {"runs_as", row[1]},
                              {"processor", cpu.model},
                              {"instruction_sets", instruction_sets(cpu)},
                              {"cores", usable_cores()},
                              {"threads", threads},
                              {"l1d_bytes", cpu.l1d_bytes},
                              {"l2_bytes", cpu.l2_bytes},
                              {"l3_bytes", cpu.l3_bytes},
                              {"read_gb_s", peaks.read_gb_s.back()},
                              {"f32_gflops", peaks.f32_gflops},
                              {"bf16_gflops", peaks.bf16_gflops},
                              {"int8_gops", peaks.int8_gops},
                              {"kept_in", kept ? boost::json::value(file) : boost::json::value()},
                              {"fork_join_us", times.fork_join_us},
                              {"fork_join_slept_us", times.fork_join_slept_us},
                              {"fork_join_woken_us", times.fork_join_woken_us},
                              {"wake_us", times.wake_us},
                              {"core_round_trip_ns", times.round_trip_ns},
                              {"version", std::string(version())},
                              {"commit", std::string(commit())}});
    return print_json(rows);
  }
  print_text(markdown(table));
  Table facts{{"this machine", ""},
              {{"processor", cpu.model.empty() ? "unknown" : cpu.model},
               {"cores this process may use", text(usable_cores())},
               {"instruction sets", instruction_sets(cpu)},
               {"caches", text("L1d ", cpu.l1d_bytes >> 10, " KiB, L2 ", cpu.l2_bytes >> 10,
                               " KiB, L3 ", cpu.l3_bytes >> 10, " KiB")},
               {"memory read, measured", read_text(peaks)},
               {"float32 FMA, measured", rate_text(peaks.f32_gflops, "GFLOP/s")},
               {"bf16 dot products, measured", rate_text(peaks.bf16_gflops, "GFLOP/s")},
               {"int8 dot products, measured", rate_text(peaks.int8_gops, "GOP/s")},
               {"fork and join of the threads",
                text(fixed(times.fork_join_us, 2), " us, ", fixed(times.fork_join_slept_us, 2),
                     " us after they slept, ", fixed(times.fork_join_woken_us, 2),
                     " us where a request woke them (", fixed(times.wake_us, 2), " us) before")},
               {"a cache line from core to core and back",
                times.round_trip_ns > 0 ? text(fixed(times.round_trip_ns, 0), " ns") : "one core"},
               {"kept for benchmarks in", kept ? file : "nowhere"}}};
  print_text("\n" + markdown(facts));
}

}  // namespace

const Verb kDevicesVerb = {
    .name = "devices",
    .summary = "where models can run here, and what memory and arithmetic reach, measured now",
    .details =
        "Measured anew by every `mantissa devices`, in under 10 s, and kept in "
        "$XDG_CACHE_HOME/mantissa (or ~/.cache/mantissa), one file per processor, number of "
        "threads and instruction set: benchmarks read their arithmetic peaks from there (read "
        "bandwidth they measure themselves). Of each arithmetic peak the higher one is kept: a "
        "busy "
        "machine only lowers it.",
    .examples =
        "mantissa devices\nmantissa devices --threads 1 --json\nmantissa devices --forget-peaks",
    .groups = kCommonOnly,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
