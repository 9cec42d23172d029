# flashnce_add_cpu_kernels(<target>): compiles every source of src/cpu/isa once per instruction set.
#
# Each copy is an object library flashnce_cpu_<isa> with its own flags and FNCE_ISA=<isa>, the name of its namespace; the
# library picks one when it runs. FNCE_ISA_<ISA>=1 tells the sources of <target> which copies exist. Inline functions with
# external linkage must not come out of these objects: the linker would keep one copy, perhaps the AVX-512 one, for all
# (tests/static/check_weak_symbols.py).
#
# AES and carry-less multiply are named because Highway counts them to its AVX2 and AVX-512 targets, the x86-64 levels do not.
set(FLASHNCE_ISA_FLAGS_baseline "")
set(FLASHNCE_ISA_FLAGS_avx2 -march=x86-64-v3 -maes -mpclmul)
set(FLASHNCE_ISA_FLAGS_avx512 -march=x86-64-v4 -maes -mpclmul -mprefer-vector-width=512)

set(FLASHNCE_ISAS baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  list(APPEND FLASHNCE_ISAS avx2 avx512)
endif()

find_path(FLASHNCE_HIGHWAY_INCLUDE hwy/highway.h DOC "Folder that holds hwy/highway.h (Highway 1.0 or newer)")
if(NOT FLASHNCE_HIGHWAY_INCLUDE)
  message(FATAL_ERROR "hwy/highway.h was not found: install Highway (Debian, Ubuntu: libhwy-dev) "
                      "or set FLASHNCE_HIGHWAY_INCLUDE to the folder that holds hwy/")
endif()

function(flashnce_add_cpu_kernels target)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cpu/isa/*.cpp")
  if(NOT sources)
    return()
  endif()
  foreach(isa IN LISTS FLASHNCE_ISAS)
    set(kernels flashnce_cpu_${isa})
    add_library(${kernels} OBJECT ${sources})
    flashnce_compile_settings(${kernels})
    target_compile_options(${kernels} PRIVATE ${FLASHNCE_ISA_FLAGS_${isa}})
    target_compile_definitions(${kernels} PRIVATE FNCE_ISA=${isa} HWY_COMPILE_ONLY_STATIC)
    target_include_directories(${kernels} SYSTEM PRIVATE "${FLASHNCE_HIGHWAY_INCLUDE}")
    string(TOUPPER ${isa} isa_upper)
    target_compile_definitions(${target} PRIVATE FNCE_ISA_${isa_upper}=1)
  endforeach()
endfunction()
