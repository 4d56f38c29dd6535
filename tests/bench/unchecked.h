#pragma once
// For programs that time the engine's steps.

#ifdef PADDOCK_CHECK_STEPS
#error "steps are timed without checks of the books: configure with -DPADDOCK_CHECK_STEPS=OFF"
#endif
