/*
 * What the frozen ABI is held against.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef ABI_ASSERTIONS_H
#define ABI_ASSERTIONS_H

#include <stddef.h>

/* A static assertion that C99 has too. */
#define PASTE(a, b) a##b
#define NAMED(line) PASTE(abi_, line)
#define HOLDS(condition) extern char NAMED(__LINE__)[(condition) ? 1 : -1]

#define VALUE(name, value) HOLDS((name) == (value))
/* A struct may grow, its first version's fields stay where they are. */
#define SIZE(type, size) HOLDS(sizeof(type) >= (size))
#define FIELD(type, field, offset, size) \
  HOLDS(offsetof(type, field) == (offset) && sizeof(((type *)0)->field) == (size))

#endif
