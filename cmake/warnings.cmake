# flashnce_warnings: the warnings of our own code, as an interface target that is never exported.
# Highway's headers are system headers and stay silent.
add_library(flashnce_warnings INTERFACE)
target_compile_options(
  flashnce_warnings
  INTERFACE -Wall -Wextra -Wpedantic -Wshadow $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
            -Wcast-qual -Wpointer-arith -Wvla -Wno-missing-field-initializers $<$<BOOL:${FLASHNCE_WERROR}>:-Werror>)
