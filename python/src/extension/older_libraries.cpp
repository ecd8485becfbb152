// What lets the extension module load with releases of the C++ library that are older than
// that which it is linked with: functions that these lack, by way of those that they have.

extern "C" {

/// An array whose size overflows: what is thrown is a std::bad_alloc, too.
[[noreturn]] void throw_bad_alloc() __asm__("_ZSt17__throw_bad_allocv");
[[noreturn, gnu::visibility("hidden")]] void throw_bad_array_new_length() __asm__(
    "_ZSt28__throw_bad_array_new_lengthv");
void throw_bad_array_new_length() { throw_bad_alloc(); }

// std::exception_ptr, of which newer headers leave no more to the library than counting.

void copy(void *pointer, const void *other) __asm__("_ZNSt15__exception_ptr13exception_ptrC1ERKS0_");
void destroy(void *pointer) __asm__("_ZNSt15__exception_ptr13exception_ptrD1Ev");

[[gnu::visibility("hidden")]] void add_reference(const void *pointer) __asm__(
    "_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
void add_reference(const void *pointer) {
  // Is never destroyed.
  void *counted;
  copy(&counted, pointer);
}

[[gnu::visibility("hidden")]] void release(void *pointer) __asm__(
    "_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
void release(void *pointer) { destroy(pointer); }
}
