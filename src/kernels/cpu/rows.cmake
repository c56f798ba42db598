set(CPU_ROWS_SOURCES
  cpu/attention.cc
  cpu/attention_portable.cc
  cpu/rows.cc
  cpu/rows_portable.cc)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND CPU_ROWS_SOURCES
    cpu/attention_avx2.cc
    cpu/attention_avx512.cc
    cpu/rows_avx2.cc
    cpu/rows_avx512.cc)
endif()
