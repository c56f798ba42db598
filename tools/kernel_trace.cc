// A library that CUDA loads into any program (CUDA_INJECTION64_PATH) and that records every kernel
// and copy with CUPTI, inside graphs too. At exit it writes to $KERNEL_TRACE one JSON line a kind
// of kernel (name, grid, count, mean and sum in us), then as many launches in a row as
// $KERNEL_TRACE_ROWS says, the last of the run: start of each after the first, duration.
//   g++ -O2 -std=c++20 -shared -fPIC -I$CUDA/include tools/kernel_trace.cc -o libkernel_trace.so
//       -L$CUDA/lib64 -lcupti
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr size_t kBufferBytes = 8 << 20;

struct Record {
  uint64_t start, end;
  int name;
  int grid[3];
};
struct Trace {
  std::mutex mutex;
  std::map<std::string, int> ids;
  std::vector<std::string> names;
  std::vector<Record> records;

  int id_of(const char* name);
};
Trace& trace() {
  static auto* one = new Trace;  // outlives every thread that delivers buffers
  return *one;
}

// "void ns::kernel<args>(parameters)" without result and parameters.
std::string readable(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? plain.get() : mangled;
  for (const char* drop : {"void ", "mantissa::cuda::", "(anonymous namespace)::"}) {
    for (size_t at; (at = name.find(drop)) != std::string::npos;)
      name.erase(at, std::char_traits<char>::length(drop));
  }
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

int Trace::id_of(const char* name) {
  const auto [at, is_new] = ids.try_emplace(name, static_cast<int>(names.size()));
  if (is_new) names.push_back(readable(name));
  return at->second;
}

void CUPTIAPI request(uint8_t** buffer, size_t* size, size_t* max_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(16, kBufferBytes));
  *size = kBufferBytes;
  *max_records = 0;
}

void CUPTIAPI complete(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  Trace& t = trace();
  const std::lock_guard lock(t.mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto* k = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
      t.records.push_back({k->start, k->end, t.id_of(k->name), {k->gridX, k->gridY, k->gridZ}});
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* c = reinterpret_cast<const CUpti_ActivityMemcpy5*>(record);
      t.records.push_back({c->start, c->end, t.id_of("copy"), {static_cast<int>(c->bytes), 1, 1}});
    }
  }
  std::free(buffer);
}

void write_trace() {
  cuptiActivityFlushAll(1);
  Trace& t = trace();
  const std::lock_guard lock(t.mutex);
  const char* path = std::getenv("KERNEL_TRACE");
  std::FILE* out = path == nullptr ? stderr : std::fopen(path, "w");
  if (out == nullptr) return;
  std::sort(t.records.begin(), t.records.end(),
            [](const Record& a, const Record& b) { return a.start < b.start; });
  struct Sum {
    int64_t count = 0, ns = 0;
  };
  std::map<std::string, Sum> sums;
  const auto label = [&](const Record& r) {
    return t.names[r.name] + "\",\"grid\":[" + std::to_string(r.grid[0]) + "," +
           std::to_string(r.grid[1]) + "," + std::to_string(r.grid[2]) + "]";
  };
  for (const Record& r : t.records) {
    Sum& s = sums[label(r)];
    ++s.count;
    s.ns += static_cast<int64_t>(r.end - r.start);
  }
  std::vector<std::pair<std::string, Sum>> rows(sums.begin(), sums.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.ns > b.second.ns; });
  for (const auto& [name, s] : rows) {
    std::fprintf(out, "{\"kernel\":\"%s,\"count\":%lld,\"mean_us\":%.2f,\"sum_us\":%.0f}\n",
                 name.c_str(), static_cast<long long>(s.count),
                 static_cast<double>(s.ns) * 1e-3 / static_cast<double>(s.count),
                 static_cast<double>(s.ns) * 1e-3);
  }
  const char* wanted = std::getenv("KERNEL_TRACE_ROWS");
  const size_t count =
      std::min<size_t>(wanted == nullptr ? 0 : std::strtoul(wanted, nullptr, 10), t.records.size());
  const size_t first = t.records.size() - count;
  for (size_t i = first; i < first + count; ++i) {
    const Record& r = t.records[i];
    std::fprintf(out, "%.2f\t%.2f\t%.90s\n",
                 static_cast<double>(r.start - t.records[first].start) * 1e-3,
                 static_cast<double>(r.end - r.start) * 1e-3, label(r).c_str());
  }
  if (out != stderr) std::fclose(out);
}

}  // namespace

extern "C" int InitializeInjection() {
  if (cuptiActivityRegisterCallbacks(request, complete) != CUPTI_SUCCESS) return 0;
  for (const auto kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY}) {
    if (cuptiActivityEnable(kind) != CUPTI_SUCCESS) return 0;
  }
  std::atexit(write_trace);
  return 1;
}
