# Cross build for arm64 with the compilers of Debian's and Ubuntu's g++-aarch64-linux-gnu; its programs run under
# qemu-user, so that tests are found and run as in a native build. `cmake --preset arm64` uses this file.
#
# Highway and Catch2 2 are headers alone: those of the build machine serve. Its own C library must not: the compiler
# looks into /usr/aarch64-linux-gnu first, and into /usr/include for what is not there.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# Libraries of the build machine are of no use here.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)

find_program(FLASHNCE_QEMU NAMES qemu-aarch64 qemu-aarch64-static DOC "qemu-user, which runs arm64 programs")
if(FLASHNCE_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${FLASHNCE_QEMU};-L;/usr/aarch64-linux-gnu")
endif()
