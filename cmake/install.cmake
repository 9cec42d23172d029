# Installs the headers, both libraries, the CMake package, the pkg-config file and the licence; with FLASHNCE_PYTHON the
# shared library alone, as component `python`, into the wheel's flashnce/lib. In another project's build (FetchContent,
# add_subdirectory) nothing is installed unless that project sets FLASHNCE_INSTALL.
include(CMakePackageConfigHelpers)

option(FLASHNCE_INSTALL "Install FlashNCE with this build" ${PROJECT_IS_TOP_LEVEL})

if(FLASHNCE_PYTHON)
  install(TARGETS flashnce LIBRARY DESTINATION flashnce/lib COMPONENT python)
  return()
endif()
if(NOT FLASHNCE_INSTALL)
  return()
endif()

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/flashnce")

install(
  TARGETS flashnce flashnce_static
  EXPORT flashnceTargets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
install(FILES "${PROJECT_SOURCE_DIR}/include/flashnce/flashnce.h" "${PROJECT_SOURCE_DIR}/include/flashnce/flashnce.hpp"
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/flashnce")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(EXPORT flashnceTargets NAMESPACE flashnce:: DESTINATION "${package_dir}")

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/flashnceConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/flashnceConfig.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/flashnceConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/flashnceConfig.cmake" "${PROJECT_BINARY_DIR}/flashnceConfigVersion.cmake"
        DESTINATION "${package_dir}")

# Paths in flashnce.pc start at the folder that it lies in, so that an installed tree can be moved.
file(RELATIVE_PATH pc_prefix "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
set(pc_cuda_libraries "")
if(FLASHNCE_CUDA_FOUND)
  set(pc_cuda_libraries " -ldl -lrt")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/flashnce.pc.in" "${PROJECT_BINARY_DIR}/flashnce.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/flashnce.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
