# `cmake --install`: bin/mantissa, the public headers, and the CMake package Mantissa whose target
# Mantissa::mantissa stands for all layers but app.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(layers GLOBAL PROPERTY MANTISSA_LAYERS)
list(REMOVE_ITEM layers mantissa_app)

# The target that users link; its name inside the build differs from the program's.
add_library(mantissa_api INTERFACE)
set_target_properties(mantissa_api PROPERTIES EXPORT_NAME mantissa)
target_include_directories(mantissa_api INTERFACE
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
  "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_compile_features(mantissa_api INTERFACE cxx_std_20)
target_link_libraries(mantissa_api INTERFACE ${layers})

install(TARGETS mantissa_api ${layers} EXPORT MantissaTargets
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/mantissa" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h")
if(TARGET mantissa)
  install(TARGETS mantissa RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/Mantissa")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/MantissaConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/MantissaConfig.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/MantissaConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(EXPORT MantissaTargets NAMESPACE Mantissa:: DESTINATION "${package_dir}")
install(FILES "${PROJECT_BINARY_DIR}/MantissaConfig.cmake"
  "${PROJECT_BINARY_DIR}/MantissaConfigVersion.cmake" DESTINATION "${package_dir}")
