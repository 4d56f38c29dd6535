// Symbol visibility. Static builds define PADDOCK_STATIC (the CMake target does it for you).
#pragma once

#if defined(PADDOCK_STATIC)
#define PADDOCK_API
#elif defined(_WIN32)
#ifdef PADDOCK_BUILDING
#define PADDOCK_API __declspec(dllexport)
#else
#define PADDOCK_API __declspec(dllimport)
#endif
#else
#define PADDOCK_API __attribute__((visibility("default")))
#endif
