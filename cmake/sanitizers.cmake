# FLASHNCE_SANITIZE puts every target of this build under the named sanitizers. A finding ends the program, so that no
# test can pass with one.
if(FLASHNCE_SANITIZE)
  add_compile_options(-fsanitize=${FLASHNCE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${FLASHNCE_SANITIZE})
endif()
