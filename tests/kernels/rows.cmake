set(OPERATION_TESTS
  attention_test.cc
  block_rows_test.cc
  ref_test.cc
  rows_test.cc)
