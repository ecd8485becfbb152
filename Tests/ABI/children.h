/*
 * Child processes of test programs in C.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef TEST_CHILDREN_H
#define TEST_CHILDREN_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/** What a child has exited with; -1 if it has not. */
static inline int status_of(pid_t child) {
  int status = -1;
  if (child <= 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

/** The same of one that runs `body`, within half a minute. */
static inline int in_child(int (*body)(void)) {
  pid_t child;
  fflush(stdout);
  child = fork();
  if (child == 0) {
    int status;
    alarm(30);
    status = body();
    fflush(stdout);
    _exit(status);
  }
  return status_of(child);
}

#endif
