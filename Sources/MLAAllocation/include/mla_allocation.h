// Functions that the linker calls in place of the C library's; see allocation.c.
