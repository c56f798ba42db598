set(CPU_LINEAR_SOURCES cpu/bench.cc cpu/isa.cc cpu/layout.cc
    cpu/linear.cc cpu/linear_int_portable.cc cpu/linear_portable.cc cpu/ops.cc
    cpu/pack.cc cpu/peaks.cc cpu/peaks_portable.cc cpu/plan.cc cpu/queue.cc)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND CPU_LINEAR_SOURCES cpu/linear_avx2.cc cpu/linear_avx512.cc
       cpu/linear_blocks_avx512.cc
       cpu/linear_int_avx2.cc cpu/linear_int_avx512.cc cpu/peaks_avx2.cc
       cpu/peaks_avx512.cc)
endif()
