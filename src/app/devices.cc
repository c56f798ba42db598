// `mantissa devices`: where models can run here, and what the hardware reaches.
#include <boost/json.hpp>

#include "app/command.h"
#include "app/help.h"
#include "app/output.h"
#include "app/version.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "bench/read_bandwidth.h"
#include "device/cpu_features.h"
#include "kernels/ops.h"

namespace mantissa {
namespace {

Table backends(const Args& args) {
  Table table{{"device", "runs as"}, {}};
  for (const Ops* ops : all_ops()) {
    if (args.text("device") != "auto" && args.text("device") != ops->name) continue;
    try {
      Queue* queue = ops->open({.threads = static_cast<int>(args.integer("threads")),
                                .isa = args.text("isa"),
                                .scratch_tokens = 1});
      table.rows.push_back({std::string(ops->name), ops->describe(queue)});
      ops->close(queue);
    } catch (const Error& e) {
      if (args.text("device") != "auto") throw;
      table.rows.push_back({std::string(ops->name), text("cannot run: ", e.found)});
    }
  }
  return table;
}

void run(const Args& args) {
  const CpuFeatures cpu = read_cpu_features();
  const Table table = backends(args);
  const int threads =
      args.integer("threads") > 0 ? static_cast<int>(args.integer("threads")) : usable_cores();
  const double read = read_bandwidth_gb_s(threads);
  if (args.flag("json")) {
    boost::json::array rows;
    for (const std::vector<std::string>& row : table.rows)
      rows.push_back(boost::json::object{{"device", row[0]},
                                         {"runs_as", row[1]},
                                         {"processor", cpu.model},
                                         {"instruction_sets", instruction_sets(cpu)},
                                         {"cores", usable_cores()},
                                         {"threads", threads},
                                         {"l1d_bytes", cpu.l1d_bytes},
                                         {"l2_bytes", cpu.l2_bytes},
                                         {"l3_bytes", cpu.l3_bytes},
                                         {"read_gb_s", read},
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
               {"memory read, measured", text(fixed(read, 2), " GB/s with ", threads,
                                              threads == 1 ? " thread" : " threads")}}};
  print_text("\n" + markdown(facts));
}

}  // namespace

const Verb kDevicesVerb = {
    .name = "devices",
    .summary = "where models can run here, and the memory bandwidth measured now",
    .details = "",
    .examples = "mantissa devices\nmantissa devices --threads 1 --json",
    .groups = kCommonOnly,
    .options = {},
    .run = run,
};

}  // namespace mantissa
