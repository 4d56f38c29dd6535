# Install rules. Components: paddock_library (what programs run with; the archive of a static build),
# paddock_headers (what is needed to compile: headers, CMake package, pkg-config file), paddock_tool.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/paddock)
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS paddock EXPORT paddockTargets
    RUNTIME COMPONENT paddock_library
    ARCHIVE COMPONENT paddock_library
    LIBRARY COMPONENT paddock_library NAMELINK_COMPONENT paddock_headers)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/paddock DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    COMPONENT paddock_headers)
install(EXPORT paddockTargets NAMESPACE paddock:: DESTINATION ${package_dir}
    COMPONENT paddock_headers)
configure_file(cmake/paddockConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/paddockConfig.cmake @ONLY)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/paddockConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/paddockConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/paddockConfigVersion.cmake cmake/FindPCRE2.cmake
    DESTINATION ${package_dir} COMPONENT paddock_headers)

# pkg-config. Folders relative to the file itself, so that the whole tree may be moved.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
  set(pc_libdir "${CMAKE_INSTALL_FULL_LIBDIR}")
  set(pc_includedir "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()
  file(RELATIVE_PATH pc_up "/${pkgconfig_dir}" /)
  string(REGEX REPLACE "/$" "" pc_up "${pc_up}")
  set(pc_prefix "\${pcfiledir}/${pc_up}")
  set(pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
  set(pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
# What the library itself is linked with: of no concern to who links the shared one.
set(pc_private ".private")
set(pc_cflags "")
if(NOT PADDOCK_SHARED)
  set(pc_private "")
  set(pc_cflags " -DPADDOCK_STATIC")
endif()
set(pc_system "-pthread")
if(PADDOCK_WITH_CUDA)
  string(APPEND pc_system " -L${CUDAToolkit_LIBRARY_DIR} -lcublas -lcudart_static -lrt -ldl")
endif()
configure_file(cmake/paddock.pc.in ${CMAKE_CURRENT_BINARY_DIR}/paddock.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/paddock.pc DESTINATION ${pkgconfig_dir}
    COMPONENT paddock_headers)
