set(REF_SOURCES ref/attention.cc ref/linear.cc ref/ops.cc ref/rows.cc)
