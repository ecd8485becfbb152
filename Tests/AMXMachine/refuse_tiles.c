/*
 * refuse_tiles ERROR PROGRAM [ARGUMENT...]: runs PROGRAM where asking for the tile
 * registers fails with that error number, as a container's filter may have it.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023 };

#define WORD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))

int main(int count, char **arguments) {
  if (count < 3) return 2;
  const unsigned error = (unsigned)atoi(arguments[1]) & SECCOMP_RET_DATA;
  struct sock_filter rules[] = {
      WORD(nr),      UNLESS(SYS_arch_prctl, 3),
      WORD(args[0]), UNLESS(ARCH_REQ_XCOMP_PERM, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    perror("refuse_tiles");
    return 1;
  }
  execv(arguments[2], arguments + 2);
  perror(arguments[2]);
  return 127;
}
