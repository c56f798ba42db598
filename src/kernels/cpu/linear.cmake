set(CPU_LINEAR_SOURCES cpu/isa.cc cpu/ops.cc cpu/queue.cc)
