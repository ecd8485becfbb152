#include <stdint.h>

// What the linker calls in place of the Swift runtime's checks of exclusive access (see
// Package.swift): none. They keep thread-local storage that is allocated on a thread's
// first access, and the process ends where that fails. The tests' executables have them.
void __wrap_swift_beginAccess(void *object, void *access, uintptr_t flags, void *caller) {
  (void)object, (void)access, (void)flags, (void)caller;
}

void __wrap_swift_endAccess(void *access) { (void)access; }
