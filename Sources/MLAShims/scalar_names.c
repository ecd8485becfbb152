#include <stdint.h>

// What the linker calls in place of the Swift runtime's look-up of a Unicode
// character's name (see Package.swift): none has one, which Swift hands on as nil.
intptr_t __wrap__swift_stdlib_getScalarName(uint32_t scalar, uint8_t *name, intptr_t capacity) {
  (void)scalar, (void)name, (void)capacity;
  return 0;
}
