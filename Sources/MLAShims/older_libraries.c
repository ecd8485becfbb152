#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

// What lets the library load with releases of the C and C++ libraries that are older than
// those it is linked with. A linker takes a function's newest version; names that begin
// with __wrap_ are Package.swift's `moved`, and call the first version instead, which every
// release has: the functions were moved from one file of the C library to another, or given
// another way to tell of errors, and do the same.

#if defined(__x86_64__)
#define FIRST_VERSION "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST_VERSION "GLIBC_2.17"
#endif

#ifdef FIRST_VERSION
#define FIRST_OF(result, name, parameters, ...)                     \
  result first_##name parameters;                                   \
  __asm__(".symver first_" #name ", " #name "@" FIRST_VERSION);     \
  result __wrap_##name parameters { return first_##name(__VA_ARGS__); }

// Which set errno by way of a function around them.
FIRST_OF(double, exp, (double x), x)
FIRST_OF(double, exp2, (double x), x)
FIRST_OF(double, log, (double x), x)
FIRST_OF(double, log2, (double x), x)

// Which were in libdl.
FIRST_OF(void *, dlopen, (const char *file, int mode), file, mode)
FIRST_OF(void *, dlsym, (void *handle, const char *name), handle, name)
FIRST_OF(char *, dlerror, (void))
FIRST_OF(int, dladdr, (const void *address, void *info), address, info)

// Which were in libpthread.
FIRST_OF(
    int, pthread_create,
    (pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument),
    thread, attributes, start, argument)
FIRST_OF(
    int, pthread_attr_setstacksize, (pthread_attr_t *attributes, size_t bytes), attributes, bytes)
FIRST_OF(int, pthread_key_create, (pthread_key_t *key, void (*end)(void *)), key, end)
FIRST_OF(int, pthread_setspecific, (pthread_key_t key, const void *value), key, value)
FIRST_OF(
    int, pthread_sigmask, (int how, const sigset_t *signals, sigset_t *before), how, signals,
    before)
#endif

// Functions that older releases lack.

// Of an array whose size overflows: it is a std::bad_alloc, too.
_Noreturn void _ZSt17__throw_bad_allocv(void);
_Noreturn void _ZSt28__throw_bad_array_new_lengthv(void) { _ZSt17__throw_bad_allocv(); }

#if defined(__aarch64__)
// Names that newer headers gave to what every C and C++ library has: the runtime for Arm was
// compiled with them.
extern long old_strtol(const char *text, char **end, int base) __asm__("strtol");
extern long long old_strtoll(const char *text, char **end, int base) __asm__("strtoll");
extern int old_vsscanf(const char *text, const char *format, va_list values) __asm__("vsscanf");
long __isoc23_strtol(const char *text, char **end, int base) { return old_strtol(text, end, base); }
long long __isoc23_strtoll(const char *text, char **end, int base) {
  return old_strtoll(text, end, base);
}
int __isoc23_sscanf(const char *text, const char *format, ...) {
  va_list values;
  va_start(values, format);
  const int count = old_vsscanf(text, format, values);
  va_end(values);
  return count;
}
// A failed assertion of libstdc++, which prints and aborts.
_Noreturn void _ZSt21__glibcxx_assert_failPKciS0_S0_(
    const char *file, int line, const char *function, const char *condition) {
  (void)file, (void)line, (void)function, (void)condition;
  abort();
}
#endif
