# The CUDA backend: whether it is built, for which architectures, and how its kernels are compiled.
#
# Sets FLASHNCE_CUDA_FOUND, and with it FLASHNCE_CUDA_OBJECTS: objects that belong into every library beside those of
# flashnce_objects. They hold NVIDIA's runtime library as well, so that the libraries need nothing but a driver where
# they run and nothing at all where they are linked.
#
# FLASHNCE_CUDA_ARCHS is a list such as "75;80;90;120": machine code for each, and PTX of the last one for what comes
# later; of 90 as well, for compute capability 10.x and 11.x, which do not run what is made for 12.0. "release" stands
# for all that a release has, as Python wheels do; while developing, one is enough.
# kernels/rows and kernels/engines/plain are compiled for all of them, kernels/engines/sm80 for those from 80 on.
set(FLASHNCE_CUDA_RELEASE_ARCHS 75 80 90 120)
if(FLASHNCE_PYTHON)
  set(default_archs release)
else()
  set(default_archs 80)
endif()
set(FLASHNCE_CUDA_ARCHS "${default_archs}"
    CACHE STRING "Architectures of the CUDA kernels, or release; the last one and 90 also as PTX")
if(FLASHNCE_CUDA_ARCHS STREQUAL "release")
  set(FLASHNCE_CUDA_ARCHS ${FLASHNCE_CUDA_RELEASE_ARCHS})
endif()

# flashnce_cuda_host_sources(<variable>): what launches the kernels: C++, for CUDA's headers or those of tests/hostcuda.
function(flashnce_cuda_host_sources variable)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/host/*.cpp"
       "${PROJECT_SOURCE_DIR}/kernels/engines/*/*.cpp")
  set(${variable} "${sources}" PARENT_SCOPE)
endfunction()

# flashnce_cuda_kernel_sources(<variable> <folder>...)
function(flashnce_cuda_kernel_sources variable)
  list(TRANSFORM ARGN REPLACE "(.+)" "${PROJECT_SOURCE_DIR}/kernels/\\1/*.cu" OUTPUT_VARIABLE patterns)
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  set(${variable} "${sources}" PARENT_SCOPE)
endfunction()

set(FLASHNCE_CUDA_FOUND OFF)
set(FLASHNCE_CUDA_OBJECTS "")
if(FLASHNCE_CUDA STREQUAL "OFF")
  return()
endif()

# The reason why there is no CUDA backend: an error where it was asked for.
macro(flashnce_without_cuda reason)
  if(FLASHNCE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FLASHNCE_CUDA=ON: ${reason}")
  endif()
  message(STATUS "FlashNCE is built without CUDA: ${reason}")
  return()
endmacro()

if(FLASHNCE_SANITIZE)
  flashnce_without_cuda("sanitizers check host code only")
elseif(CMAKE_CROSSCOMPILING)
  flashnce_without_cuda("this is a cross build")
endif()

# Where installers of NVIDIA put it, on the path or not.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(FLASHNCE_NVCC nvcc HINTS "$ENV{CUDA_PATH}/bin" /usr/local/cuda/bin DOC "NVIDIA's CUDA compiler")
  mark_as_advanced(FLASHNCE_NVCC)
  if(FLASHNCE_NVCC)
    set(ENV{CUDACXX} "${FLASHNCE_NVCC}")
  endif()
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # each target says for itself
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  flashnce_without_cuda("no working nvcc was found")
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA" OR CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  flashnce_without_cuda("nvcc 12.0 or newer is needed, for C++20")
endif()
find_package(CUDAToolkit QUIET)
find_library(FLASHNCE_CUDART cudart_static HINTS ${CUDAToolkit_LIBRARY_DIR} DOC "NVIDIA's static runtime library")
mark_as_advanced(FLASHNCE_CUDART)
if(NOT CUDAToolkit_FOUND OR NOT FLASHNCE_CUDART)
  flashnce_without_cuda("nvcc is there, but not the headers or the static runtime library of its toolkit")
endif()

set(sm80_archs "${FLASHNCE_CUDA_ARCHS}")
list(FILTER sm80_archs EXCLUDE REGEX "^[1-7][0-9]$")
foreach(arch IN LISTS FLASHNCE_CUDA_ARCHS)
  if(NOT arch MATCHES "^(7[5-9]|[89][0-9]|1[0-9][0-9])$")
    message(FATAL_ERROR
      "FLASHNCE_CUDA_ARCHS names the architecture '${arch}'; it may hold numbers from 75 on, such as 80;90")
  endif()
endforeach()
if(NOT sm80_archs)
  message(FATAL_ERROR "FLASHNCE_CUDA_ARCHS is '${FLASHNCE_CUDA_ARCHS}'; it needs one of 80 or newer")
endif()
set(FLASHNCE_CUDA_FOUND ON)

# flashnce_add_cuda_kernels(<object library> "<architectures>" <sources>...)
function(flashnce_add_cuda_kernels kernels archs)
  add_library(${kernels} OBJECT ${ARGN})
  list(GET archs -1 last)
  foreach(arch IN LISTS archs)
    set(code "sm_${arch}")
    if(arch STREQUAL last OR arch EQUAL 90)
      string(APPEND code ",compute_${arch}")
    endif()
    target_compile_options(${kernels} PRIVATE "--generate-code=arch=compute_${arch},code=[${code}]")
  endforeach()
  # CMake 3.25 does not know CUDA's C++20. Spilled registers are a mistake in a tile size (kernels/engines/sm80/tile.h).
  target_compile_options(
    ${kernels}
    PRIVATE -std=c++20
            -Xptxas=--warn-on-spills
            -Xcompiler=-Wall,-Wextra
            "-Xcompiler=-ffile-prefix-map=${PROJECT_SOURCE_DIR}/="
            $<$<BOOL:${FLASHNCE_WERROR}>:-Werror=all-warnings>)
  target_include_directories(${kernels} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}"
                                                "${PROJECT_SOURCE_DIR}/include")
  set_target_properties(${kernels} PROPERTIES CUDA_ARCHITECTURES OFF CUDA_VISIBILITY_PRESET hidden
                                              POSITION_INDEPENDENT_CODE ON)
endfunction()

# An object library for each folder of kernels, each with the architectures that its kernels are made for. All code of a
# kernel lies in one object, of which the driver takes what fits the device: a library per number would need a copy of
# every kernel under another name for each, and a choice among them of our own.
set(kernel_objects "")
foreach(folder rows engines/plain engines/sm80)
  set(archs "${FLASHNCE_CUDA_ARCHS}")
  set(subfolder "${folder}")
  if(folder STREQUAL "engines/sm80")
    set(archs "${sm80_archs}")
    set(subfolder engines/sm80/inst)
  endif()
  cmake_path(GET folder FILENAME name)
  flashnce_cuda_kernel_sources(kernel_sources "${subfolder}")
  flashnce_add_cuda_kernels(flashnce_cuda_${name} "${archs}" ${kernel_sources})
  list(APPEND kernel_objects $<TARGET_OBJECTS:flashnce_cuda_${name}>)
endforeach()

# The runtime library as objects.
set(cudart_folder "${CMAKE_CURRENT_BINARY_DIR}/cudart")
file(REMOVE_RECURSE "${cudart_folder}")
file(MAKE_DIRECTORY "${cudart_folder}")
execute_process(COMMAND "${CMAKE_AR}" xo "${FLASHNCE_CUDART}" WORKING_DIRECTORY "${cudart_folder}"
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${CMAKE_AR}" t "${FLASHNCE_CUDART}" OUTPUT_VARIABLE members COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" members "${members}")
file(GLOB cudart_objects "${cudart_folder}/*")
list(LENGTH members member_count)
list(LENGTH cudart_objects object_count)
if(NOT member_count EQUAL object_count)
  message(FATAL_ERROR "${FLASHNCE_CUDART} holds several objects of one name")
endif()

set(FLASHNCE_CUDA_OBJECTS ${kernel_objects} ${cudart_objects})
list(JOIN FLASHNCE_CUDA_ARCHS ", " arch_names)
message(STATUS "FlashNCE is built with CUDA ${CUDAToolkit_VERSION} for the architectures ${arch_names}")
