# What is tested of CUDA: kernels and engines on the CPU, and the programs that need a device.

# CUDA kernels on the CPU: compiled as C++ for the harness in support/simt (docs/cuda-kernels.md).
add_library(simt STATIC support/simt/fiber.cpp support/simt/memory.cpp support/simt/race.cpp
            support/simt/scheduler.cpp support/simt/settings.cpp support/simt/shared.cpp
            support/simt/tensor_core.cpp)
paddock_flags(simt)
target_include_directories(simt PUBLIC ${PROJECT_SOURCE_DIR}/kernels ${CMAKE_CURRENT_SOURCE_DIR})
set(device_header PADDOCK_DEVICE_HEADER="support/simt/device_host.h")  # see kernels/cuda/device.h
target_compile_definitions(simt PUBLIC ${device_header})
target_link_libraries(simt PUBLIC fmt::fmt)
# paddock_simt_test(NAME SOURCE... [FILTER gtest-filter]): a test of kernels.
function(paddock_simt_test name)
  paddock_test(${name} ${ARGN} LABELS simt)
  target_link_libraries(${name} PRIVATE simt GTest::gmock)
endfunction()
set_source_files_properties(kernels/simt_demo.cu PROPERTIES LANGUAGE CXX)
paddock_simt_test(simt_test kernels/simt_test.cpp kernels/simt_demo.cu)
set(bench_scenes gpu/attention_scenes.cpp gpu/bench_cases.cpp gpu/pattern.cpp
    gpu/product_scenes.cpp gpu/sampling_scene.cpp gpu/small_scenes.cpp)
# paddock_gpu_program(NAME SOURCE...): what gpu/check.sh runs, here or from a folder that gpu/pack.sh
# made, with its libraries in lib/.
function(paddock_gpu_program name)
  add_executable(${name} ${ARGN})
  paddock_flags(${name})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/kernels
                                             ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE paddock_inside fmt::fmt nlohmann_json::nlohmann_json)
  target_compile_definitions(${name} PRIVATE ${device_header})
  if(PADDOCK_WITH_CUDA)
    target_compile_definitions(${name} PRIVATE PADDOCK_HAS_CUDA)
    target_link_libraries(${name} PRIVATE CUDA::cudart_static CUDA::cublas)
  endif()
  set_target_properties(${name} PROPERTIES BUILD_RPATH "$ORIGIN/lib")
endfunction()
paddock_gpu_program(gpu_model gpu/gpu_model.cpp gpu/model_maker.cpp)
paddock_gpu_program(gpu_logits gpu/gpu_logits.cpp)
paddock_gpu_program(gpu_speed gpu/gpu_speed.cpp)
paddock_test(model_maker_test gpu/model_maker_test.cpp gpu/model_maker.cpp LABELS real)
if(PADDOCK_WITH_CUDA)
  target_sources(gpu_speed PRIVATE gpu/device_memory.cpp gpu/pattern.cpp gpu/stopwatch.cpp)
  paddock_gpu_program(gpu_bench gpu/gpu_bench.cpp gpu/device_memory.cpp gpu/stopwatch.cpp
                      ${bench_scenes})
  # The kernels' own tests and the engine's on a real device, in one program.
  paddock_gpu_program(gpu_test gpu/device_memory.cpp gpu/needs_device.cpp
      kernels/cuda_small_ops_test.cpp kernels/cuda_prefill_test.cpp kernels/cuda_decode_test.cpp
      kernels/cuda_dequantize_test.cpp
      kernels/cuda_gemv_test.cpp kernels/cuda_mass_test.cpp kernels/cuda_sampling_test.cpp
      kernels/cuda_tensor_gemv_test.cpp unit/cuda_engine_test.cpp)
  # The CPU's tests of engines, on a real device.
  set(sources)
  foreach(name engine eviction logits policy dense quality)
    get_target_property(own ${name}_test SOURCES)
    list(APPEND sources ${own})
  endforeach()
  list(REMOVE_DUPLICATES sources)
  paddock_gpu_program(gpu_engines gpu/device_memory.cpp gpu/needs_device.cpp support/on_cuda.cpp
                      unit/cuda_memory_test.cpp ${sources})
  foreach(program gpu_test gpu_engines)
    target_compile_definitions(${program} PRIVATE PADDOCK_GPU_TEST
                               PADDOCK_TEST_DATA="${CMAKE_CURRENT_SOURCE_DIR}/data")
    target_link_libraries(${program} PRIVATE test_support GTest::gtest GTest::gtest_main
                                             GTest::gmock)
  endforeach()
  add_test(NAME gpu COMMAND gpu_test --gtest_filter=-*NeedsEachOfItsSites*)
  add_test(NAME gpu_engines COMMAND gpu_engines)
  set_tests_properties(gpu gpu_engines PROPERTIES SKIP_RETURN_CODE 77 LABELS gpu TIMEOUT 600)
else()
  set(cuda ${PROJECT_SOURCE_DIR}/kernels/cuda)
  set(kernels ${cuda}/attention_mass.cu ${cuda}/decode_attention.cu ${cuda}/decode_tensor.cu
      ${cuda}/dequantize.cu ${cuda}/embed.cu ${cuda}/gemv.cu ${cuda}/prefill_attention.cu
      ${cuda}/sampling.cu ${cuda}/small_ops.cu ${cuda}/tensor_gemv.cu)
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX)
  add_library(simt_kernels STATIC ${kernels})
  paddock_flags(simt_kernels)
  target_compile_options(simt_kernels PRIVATE -ffp-contract=off)
  target_link_libraries(simt_kernels PUBLIC simt)
  foreach(name decode dequantize gemv mass prefill sampling small_ops tensor_gemv)
    paddock_simt_test(cuda_${name}_test kernels/cuda_${name}_test.cpp)
    target_link_libraries(cuda_${name}_test PRIVATE simt_kernels)
  endforeach()
  # What gpu_bench times, in small.
  paddock_simt_test(bench_scenes_test gpu/bench_scenes_test.cpp ${bench_scenes})
  target_link_libraries(bench_scenes_test PRIVATE simt_kernels)
  # The CUDA backend on an emulated device.
  set(backend ${PROJECT_SOURCE_DIR}/src/backend/cuda)
  add_library(emulated_cuda STATIC support/simt/simt_runtime.cpp ${backend}/cuda_attention.cpp
              ${backend}/cuda_backend.cpp ${backend}/cuda_results.cpp ${backend}/cuda_steps.cpp
              ${backend}/cuda_weights.cpp ${backend}/device_pages.cpp ${backend}/nvml.cpp
              ${backend}/products.cpp ${backend}/step_recorder.cpp ${backend}/step_upload.cpp)
  paddock_flags(emulated_cuda)
  target_include_directories(emulated_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_options(emulated_cuda PRIVATE -ffp-contract=off)
  target_link_libraries(emulated_cuda PUBLIC simt_kernels paddock_inside fmt::fmt ${CMAKE_DL_LIBS})
  paddock_simt_test(cuda_engine_test unit/cuda_engine_test.cpp unit/cuda_memory_test.cpp
                    unit/cuda_step_test.cpp unit/cuda_sharing_test.cpp support/on_cpu.cpp)
  target_link_libraries(cuda_engine_test PRIVATE emulated_cuda)
  target_compile_definitions(cuda_engine_test PRIVATE PADDOCK_EMULATED_CUDA)
  # Tests of engines that name no device, once more on it. What is slow there, or asks nothing of a
  # device, is left to gpu_engines.
  foreach(name engine logits policy poison own_rules)
    set(tests unit/poison_test.cpp)
    if(TARGET ${name}_test)
      set(tests $<TARGET_OBJECTS:${name}_test>)
    endif()
    paddock_simt_test(${name}_test_cuda ${tests} support/on_cuda.cpp
                      FILTER -RealModel*:Engine.StopStrings*:Hosts.May*:NoMemory.ChatTemplates*)
    target_link_libraries(${name}_test_cuda PRIVATE emulated_cuda)
  endforeach()
  add_library(fake_nvml MODULE support/fake_nvml.cpp)
  target_compile_definitions(cuda_engine_test PRIVATE
                             PADDOCK_FAKE_NVML="$<TARGET_FILE:fake_nvml>")
  add_dependencies(cuda_engine_test fake_nvml)
endif()
