# flashnce_add_cpu_kernels(<target>): compiles every source of src/cpu/engines/isa once per instruction set.
#
# Each copy is an object library flashnce_cpu_<isa> with its own flags and FNCE_ISA=<isa>, the name of its namespace;
# the library picks one when it runs. FNCE_ISA_<ISA>=1 tells the sources of <target> which copies exist. Inline
# functions with external linkage must not come out of these objects: the linker would keep one copy, perhaps the
# AVX-512 one, for all (tests/static/check_weak_symbols.py).
#
# AES and carry-less multiply are named because Highway counts them to its AVX2, AVX-512 and NEON targets; the x86-64
# and Arm levels do not. Nothing uses them: NEON code runs on processors without them as well (tests/cpu/neon_code.py).
#
# GCC's first scheduling pass loads so far ahead that on arm64 accumulators of the main loops leave their registers; the
# processors reorder by themselves.
set(FLASHNCE_ISA_FLAGS_baseline "")
set(FLASHNCE_ISA_FLAGS_neon -march=armv8-a+crypto $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>)
set(FLASHNCE_ISA_FLAGS_avx2 -march=x86-64-v3 -maes -mpclmul)
set(FLASHNCE_ISA_FLAGS_avx512 -march=x86-64-v4 -maes -mpclmul -mprefer-vector-width=512)

# bfloat16 products, src/cpu/engines/bf16: each adds a way to multiply bfloat16 queues to the AVX-512 copy.
set(FLASHNCE_PRODUCT_FLAGS_avx512_bf16 -mavx512bf16)
set(FLASHNCE_PRODUCT_FLAGS_amx -mamx-tile -mamx-bf16)

set(FLASHNCE_ISAS baseline)
set(FLASHNCE_PRODUCTS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  list(APPEND FLASHNCE_ISAS avx2 avx512)
  list(APPEND FLASHNCE_PRODUCTS avx512_bf16 amx)
  # Four lanes, which GCC turns into SSE2. Before GCC 12.3 Highway falls back to one, because of wrong code for 16-bit
  # products on other processors (GCC bug 106322); there are none here. Under sanitizers, whose checks of every lane
  # take minutes to compile, one.
  if(FLASHNCE_SANITIZE)
    set(FLASHNCE_ISA_FLAGS_baseline -DHWY_BROKEN_EMU128=1)
  else()
    set(FLASHNCE_ISA_FLAGS_baseline -DHWY_BROKEN_EMU128=0)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(FLASHNCE_ISAS neon)
endif()

find_path(FLASHNCE_HIGHWAY_INCLUDE hwy/highway.h DOC "Folder that holds hwy/highway.h (Highway 1.0 or newer)")
if(NOT FLASHNCE_HIGHWAY_INCLUDE)
  message(
    FATAL_ERROR
      "FlashNCE needs the headers of Highway 1.0 or newer, and hwy/highway.h was not found. Either install them:\n"
      "  Debian, Ubuntu   sudo apt-get install libhwy-dev\n"
      "  Fedora           sudo dnf install highway-devel\n"
      "  conda            conda install -c conda-forge libhwy\n"
      "or unpack https://github.com/google/highway, which need not be built, and name the folder that holds hwy/:\n"
      "  pip install . -C cmake.define.FLASHNCE_HIGHWAY_INCLUDE=FOLDER\n"
      "  cmake ... -DFLASHNCE_HIGHWAY_INCLUDE=FOLDER")
endif()

# Gives a copy the settings that all copies share.
function(flashnce_kernel_settings kernels)
  flashnce_compile_settings(${kernels})
  target_compile_definitions(${kernels} PRIVATE HWY_COMPILE_ONLY_STATIC)
  target_include_directories(${kernels} SYSTEM PRIVATE "${FLASHNCE_HIGHWAY_INCLUDE}")
endfunction()

# flashnce_add_products(<object library> <name> [<model>]): src/cpu/engines/bf16 with the matrix instructions of <name>,
# or with the header <model> in their place, which defines their intrinsics in software.
function(flashnce_add_products kernels name)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cpu/engines/bf16/*.cpp")
  string(TOUPPER ${name} name_upper)
  add_library(${kernels} OBJECT ${sources})
  target_compile_options(${kernels} PRIVATE ${FLASHNCE_ISA_FLAGS_avx512})
  target_compile_definitions(${kernels} PRIVATE FNCE_ISA=avx512 FNCE_PRODUCTS=${name} FNCE_${name_upper}=1)
  if(ARGC GREATER 2)
    target_compile_definitions(${kernels} PRIVATE "FNCE_MODEL=\"${ARGV2}\"")
  else()
    target_compile_options(${kernels} PRIVATE ${FLASHNCE_PRODUCT_FLAGS_${name}})
  endif()
  flashnce_kernel_settings(${kernels})
endfunction()

function(flashnce_add_cpu_kernels target)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cpu/engines/isa/*.cpp")
  foreach(name IN LISTS FLASHNCE_ISAS)
    set(kernels flashnce_cpu_${name})
    add_library(${kernels} OBJECT ${sources})
    target_compile_options(${kernels} PRIVATE ${FLASHNCE_ISA_FLAGS_${name}})
    target_compile_definitions(${kernels} PRIVATE FNCE_ISA=${name})
    flashnce_kernel_settings(${kernels})
    # Clang takes minutes to optimise Highway's emulated vectors, lane by lane.
    if(name STREQUAL baseline)
      target_compile_options(${kernels} PRIVATE $<$<CXX_COMPILER_ID:Clang>:-O1>)
    endif()
  endforeach()
  foreach(name IN LISTS FLASHNCE_PRODUCTS)
    flashnce_add_products(flashnce_cpu_${name} ${name})
  endforeach()
  foreach(name IN LISTS FLASHNCE_ISAS FLASHNCE_PRODUCTS)
    string(TOUPPER ${name} name_upper)
    target_compile_definitions(${target} PRIVATE FNCE_ISA_${name_upper}=1)
  endforeach()
endfunction()
