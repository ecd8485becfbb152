// What lets the extension module load with releases of the C library that are older than
// that which it is linked with.
#pragma once

/// Has this file call the first version of a function, which every release has, where a linker
/// takes the newest: those that were moved into libc from a file of their own.
#if defined(__x86_64__)
#define MLA_CALL_FIRST_VERSION(function) __asm__(".symver " #function "," #function "@GLIBC_2.2.5")
#elif defined(__aarch64__)
#define MLA_CALL_FIRST_VERSION(function) __asm__(".symver " #function "," #function "@GLIBC_2.17")
#else
#define MLA_CALL_FIRST_VERSION(function) static_assert(true)
#endif
