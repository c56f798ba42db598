# Flags and the three helpers every CMakeLists.txt here uses: mantissa_layer, mantissa_test,
# mantissa_fuzz.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

if(MANTISSA_STATIC)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
  set(Boost_USE_STATIC_LIBS ON)
  add_link_options(-static-libstdc++ -static-libgcc)
endif()
set(BOOST_VERSION_LEAST 1.81)
find_package(Boost ${BOOST_VERSION_LEAST} REQUIRED COMPONENTS json)
find_package(Threads REQUIRED)
if(MANTISSA_CUDA)
  enable_language(CUDA)
  find_package(CUDAToolkit 13.0 REQUIRED)
  # CMake 3.25 does not know that nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  if(CCACHE_PROGRAM)
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  endif()
endif()

add_library(mantissa_flags INTERFACE)
# -ffp-contract=off: quantizers are bit-equal on every host (architecture.md); kernels that want a
# fused multiply-add say so with an intrinsic or std::fma.
target_compile_options(mantissa_flags INTERFACE -Wall -Wextra -Wconversion -Werror -ffp-contract=off
                       -fno-math-errno $<$<CONFIG:Release>:-O3>)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(mantissa_flags INTERFACE -Wno-restrict)  # wrong at "x" + string: PR105651
endif()
target_include_directories(mantissa_flags INTERFACE "${PROJECT_SOURCE_DIR}/src"
                           "${PROJECT_SOURCE_DIR}/include")
if(MANTISSA_FUZZ)
  # Coverage in every layer, so that the fuzzer sees which inputs reach new code.
  target_compile_options(mantissa_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(MANTISSA_SANITIZE)
  target_compile_options(mantissa_flags INTERFACE -fsanitize=${MANTISSA_SANITIZE}
                         -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(mantissa_flags INTERFACE -fsanitize=${MANTISSA_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(mantissa_flags INTERFACE -Wno-maybe-uninitialized)  # wrong in <regex>
  endif()
endif()

# mantissa_layer(NAME SOURCES ... [DEPENDS layer ...] [LINK lib ...]): the static library of
# src/NAME.
function(mantissa_layer NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LINK" ${ARGN})
  add_library(mantissa_${NAME} STATIC ${ARG_SOURCES})
  target_link_libraries(mantissa_${NAME} PRIVATE $<BUILD_INTERFACE:mantissa_flags>)
  foreach(dep IN LISTS ARG_DEPENDS)
    target_link_libraries(mantissa_${NAME} PUBLIC mantissa_${dep})
  endforeach()
  target_link_libraries(mantissa_${NAME} PUBLIC ${ARG_LINK})
  set_property(GLOBAL APPEND PROPERTY MANTISSA_LAYERS mantissa_${NAME})
endfunction()

# mantissa_test(NAME SOURCES ... DEPENDS layer ...): one GoogleTest program, test_NAME, of tests/.
function(mantissa_test NAME)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPENDS;LINK;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(test_${NAME} ${ARG_SOURCES})
  target_link_libraries(test_${NAME} PRIVATE mantissa_flags GTest::gtest GTest::gtest_main
                        ${ARG_LINK})
  foreach(dep IN LISTS ARG_DEPENDS)
    target_link_libraries(test_${NAME} PRIVATE mantissa_${dep})
  endforeach()
  target_compile_definitions(test_${NAME} PRIVATE
    MANTISSA_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    MANTISSA_SHARED_DIR="${PROJECT_SOURCE_DIR}/../shared")
  add_test(NAME ${NAME} COMMAND test_${NAME})
  set_tests_properties(${NAME} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# mantissa_fuzz(NAME DEPENDS layer ...): libFuzzer target fuzz_NAME from fuzz/NAME.cc; the seed
# corpus is fuzz/corpus/NAME/.
function(mantissa_fuzz NAME)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  add_executable(fuzz_${NAME} ${NAME}.cc)
  target_link_libraries(fuzz_${NAME} PRIVATE mantissa_flags)
  target_compile_options(fuzz_${NAME} PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_${NAME} PRIVATE -fsanitize=fuzzer)
  foreach(dep IN LISTS ARG_DEPENDS)
    target_link_libraries(fuzz_${NAME} PRIVATE mantissa_${dep})
  endforeach()
endfunction()
