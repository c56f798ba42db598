set(OPERATION_TESTS
  ref_test.cc)
