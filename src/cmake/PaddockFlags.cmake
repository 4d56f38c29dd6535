# Flags of our own targets; nothing of this reaches a consumer.
if(PADDOCK_SANITIZE)
  add_compile_options(-fsanitize=${PADDOCK_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${PADDOCK_SANITIZE})
endif()

if(PADDOCK_BUILD_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "PADDOCK_BUILD_FUZZERS=ON needs clang: add -DCMAKE_CXX_COMPILER=clang++")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()

# -Wrestrict of GCC 12 raises false alarms on std::string (its bug 105651); -Wpsabi speaks of vectors
# passed between files, which ours never are.
function(paddock_flags target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow
                         -Wno-psabi $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                         $<$<BOOL:${PADDOCK_WERROR}>:-Werror>)
endfunction()
