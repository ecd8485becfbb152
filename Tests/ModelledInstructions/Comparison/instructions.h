// The instructions that the model spells out, one function each, on memory.
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

enum { AVX512, AVX512_BF16, AMX };

typedef struct instruction {
  const char *name;
  int needs;
  // Each operand is 64 bytes; what the instruction does not write of `out` is not touched.
  void (*run)(const void *a, const void *b, const void *c, void *out);
} instruction;

enum { MAX_INSTRUCTIONS = 64 };

// Of instructions.c as it was compiled for the CPU's own, and for the model.
extern const instruction real_instructions[MAX_INSTRUCTIONS];
extern const instruction modelled_instructions[MAX_INSTRUCTIONS];

#endif  // INSTRUCTIONS_H
