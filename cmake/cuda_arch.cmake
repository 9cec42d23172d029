# The CUDA backend: whether it is built, for which architectures, and how its kernels are compiled.
#
# Sets FLASHNCE_CUDA_FOUND; without it FLASHNCE_WITHOUT_CUDA, the reason in words; with it FLASHNCE_CUDA_OBJECTS:
# objects that belong into every library beside those of flashnce_objects. They hold NVIDIA's runtime library as well,
# so that the libraries need nothing but a driver where they run and nothing at all where they are linked.
#
# FLASHNCE_CUDA_ARCHS is a list such as "75;80;90;120": machine code for each, and PTX of the last one for what comes
# later; of 90 as well, for compute capability 10.x and 11.x, which do not run what is made for 12.0. 90a is another
# way to say 90: which kernels use the instructions that 9.0 alone has is said by their line below. "release" stands for
# all that a release has, as the wheels of ./dev wheel do. By default it is one, since each takes minutes, in which pip
# says nothing.
set(FLASHNCE_CUDA_RELEASE_ARCHS 75 80 90 120)

# The folders of kernels, a line each: where it lies below kernels/, and the architectures that it is made for. That is
# "any", or all from one on, such as "80+", or a single one, such as "90a". A folder that nothing in FLASHNCE_CUDA_ARCHS
# fits is compiled for the least one that it is made for, because the host's list of families has its kernels.
set(FLASHNCE_CUDA_FOLDERS
    "rows any"
    "engines/plain any"
    "engines/sm80 80+")

set(FLASHNCE_CUDA_ARCHS 80
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

# flashnce_cuda_kernel_sources(<variable> <line of FLASHNCE_CUDA_FOLDERS>...): the kernels of these folders.
function(flashnce_cuda_kernel_sources variable)
  set(sources "")
  foreach(line IN LISTS ARGN)
    string(REGEX REPLACE " .*" "" folder "${line}")
    file(GLOB found CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/${folder}/*.cu"
         "${PROJECT_SOURCE_DIR}/kernels/${folder}/inst/*.cu")
    list(APPEND sources ${found})
  endforeach()
  set(${variable} "${sources}" PARENT_SCOPE)
endfunction()

# flashnce_cuda_archs_of(<variable> <line of FLASHNCE_CUDA_FOLDERS>): the architectures that its folder is compiled for.
function(flashnce_cuda_archs_of variable line)
  string(REGEX REPLACE ".* " "" made_for "${line}")
  string(REGEX REPLACE "[+a]$" "" least "${made_for}")
  set(archs "")
  foreach(arch IN LISTS FLASHNCE_CUDA_ARCHS)
    if(made_for STREQUAL "any" OR (made_for MATCHES "\\+$" AND NOT arch LESS least))
      list(APPEND archs ${arch})
    elseif(arch EQUAL least)
      list(APPEND archs ${made_for})
    endif()
  endforeach()
  if(NOT archs)
    string(REPLACE "+" "" archs "${made_for}")
  endif()
  set(${variable} "${archs}" PARENT_SCOPE)
endfunction()

set(FLASHNCE_CUDA_FOUND OFF)
set(FLASHNCE_CUDA_OBJECTS "")
if(FLASHNCE_CUDA STREQUAL "OFF")
  set(FLASHNCE_WITHOUT_CUDA "it was configured with FLASHNCE_CUDA=OFF")
  return()
endif()

# The reason why there is no CUDA backend: an error where it was asked for.
macro(flashnce_without_cuda reason)
  if(FLASHNCE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FLASHNCE_CUDA=ON: ${reason}")
  endif()
  message(STATUS "FlashNCE is built without CUDA: ${reason}")
  set(FLASHNCE_WITHOUT_CUDA "${reason}")
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

if(NOT FLASHNCE_CUDA_ARCHS)
  message(FATAL_ERROR "FLASHNCE_CUDA_ARCHS is empty; it may hold numbers from 75 on, such as 80;90, or be release")
endif()
foreach(arch IN LISTS FLASHNCE_CUDA_ARCHS)
  if(NOT arch MATCHES "^(7[5-9]|[89][0-9]|1[0-9][0-9])a?$")
    message(FATAL_ERROR
      "FLASHNCE_CUDA_ARCHS names the architecture '${arch}'; it may hold numbers from 75 on, such as 80;90")
  endif()
endforeach()
list(TRANSFORM FLASHNCE_CUDA_ARCHS REPLACE "a$" "")
list(REMOVE_DUPLICATES FLASHNCE_CUDA_ARCHS)
set(FLASHNCE_CUDA_FOUND ON)

# flashnce_add_cuda_kernels(<object library> "<architectures>" <sources>...)
function(flashnce_add_cuda_kernels kernels archs)
  add_library(${kernels} OBJECT ${ARGN})
  list(GET archs -1 last)
  foreach(arch IN LISTS archs)
    set(code "sm_${arch}")
    # PTX of 90a would run on 9.0 alone, which has the machine code.
    if(NOT arch MATCHES "a$" AND (arch STREQUAL last OR arch EQUAL 90))
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
foreach(line IN LISTS FLASHNCE_CUDA_FOLDERS)
  string(REGEX REPLACE "(.*/)?(.*) .*" "\\2" name "${line}")
  flashnce_cuda_kernel_sources(kernel_sources "${line}")
  flashnce_cuda_archs_of(archs "${line}")
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
message(STATUS "FlashNCE is built with CUDA ${CUDAToolkit_VERSION} for the architectures ${arch_names} and, by PTX, "
               "newer ones: each takes minutes. FLASHNCE_CUDA=OFF leaves the CUDA backend out, FLASHNCE_CUDA_ARCHS "
               "names others.")
