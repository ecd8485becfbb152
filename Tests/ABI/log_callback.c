/*
 * What a removed log callback uses may be freed: when mla_set_log_callback() has
 * returned, it is over. Nobody waits for itself, or for the parent of a fork.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mla_prefill.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
/** What has happened so far, under the mutex. */
static int inside, may_leave, left, removals, children_ok;

static void add(int *count) {
  pthread_mutex_lock(&mutex);
  ++*count;
  pthread_cond_broadcast(&change);
  pthread_mutex_unlock(&mutex);
}
static void await(const int *count, int value) {
  pthread_mutex_lock(&mutex);
  while (*count < value) pthread_cond_wait(&change, &mutex);
  pthread_mutex_unlock(&mutex);
}
static int now(const int *count) {
  int value;
  pthread_mutex_lock(&mutex);
  value = *count;
  pthread_mutex_unlock(&mutex);
  return value;
}
static void start(void) { inside = may_leave = left = removals = children_ok = 0; }

static void *log_something(void *unused) {
  mla_selector_config config = MLA_SELECTOR_CONFIG_INIT;
  const char *name;
  mla_select_backend(&config, &name);
  return unused;
}
static void *remove_callback(void *unused) {
  mla_set_log_callback(NULL, NULL);
  add(&removals);
  return unused;
}

static void stay(void *context, int32_t level, const char *message) {
  (void)context, (void)level, (void)message;
  add(&inside);
  await(&may_leave, 1);
  add(&left);
}
static void another(void *context, int32_t level, const char *message) {
  (void)context, (void)level, (void)message;
}

/** Time enough for a removal that does not wait to return. */
static void a_while(void) {
  const struct timespec time = {0, 100 * 1000 * 1000};
  nanosleep(&time, NULL);
}

/** One thread or two are inside what is set; two others remove it. */
static const char *are_awaited(int calls) {
  pthread_t logging[2], removing[2];
  const char *failed = NULL;
  for (int i = 0; i < calls; ++i) pthread_create(&logging[i], NULL, log_something, NULL);
  await(&inside, calls);
  for (int i = 0; i < 2; ++i) pthread_create(&removing[i], NULL, remove_callback, NULL);
  a_while();
  if (now(&removals) != 0) failed = "a removal returned while the callback ran";
  log_something(NULL);
  if (now(&inside) != calls) failed = "it was called again";
  add(&may_leave);
  for (int i = 0; i < 2; ++i) pthread_join(removing[i], NULL);
  for (int i = 0; i < calls; ++i) pthread_join(logging[i], NULL);
  return now(&left) == calls ? failed : "calls were lost";
}

static const char *removal_waits(void) {
  start();
  mla_set_log_callback(stay, NULL);
  return are_awaited(2);
}

static void replace_itself(void *context, int32_t level, const char *message) {
  (void)context, (void)level, (void)message;
  add(&inside);
  await(&inside, 2);
  mla_set_log_callback(another, NULL);
  add(&left);
}

/** Callbacks that set one, on two threads at once, do not wait for each other. */
static const char *callbacks_that_call_back(void) {
  pthread_t logging[2];
  start();
  mla_set_log_callback(replace_itself, NULL);
  for (int i = 0; i < 2; ++i) pthread_create(&logging[i], NULL, log_something, NULL);
  for (int i = 0; i < 2; ++i) pthread_join(logging[i], NULL);
  mla_set_log_callback(NULL, NULL);
  return now(&left) == 2 ? NULL : "calls were lost";
}

static int status_of(pid_t child) {
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

/** A child has none of its parent's calls to wait for. */
static const char *removal_in_a_child(void) {
  pthread_t logging;
  pid_t child;
  int status;
  start();
  mla_set_log_callback(stay, NULL);
  pthread_create(&logging, NULL, log_something, NULL);
  await(&inside, 1);
  child = fork();
  if (child == 0) {
    alarm(10);
    mla_set_log_callback(another, NULL);
    log_something(NULL);
    mla_set_log_callback(NULL, NULL);
    _exit(0);
  }
  status = status_of(child);
  add(&may_leave);
  pthread_join(logging, NULL);
  mla_set_log_callback(NULL, NULL);
  return status == 0 ? NULL : "the child hangs";
}

static pid_t forking;

static void fork_inside(void *context, int32_t level, const char *message) {
  pid_t child;
  if (getpid() != forking) {
    stay(context, level, message);
    return;
  }
  child = fork();
  if (child == 0) {
    alarm(10);
    return;
  }
  if (status_of(child) == 0) add(&children_ok);
}

/** A callback forks, and returns in the child, too, where later calls count as ever. */
static const char *callbacks_that_fork(void) {
  forking = getpid();
  start();
  mla_set_log_callback(fork_inside, NULL);
  log_something(NULL);
  if (getpid() != forking) {
    start();
    _exit(are_awaited(1) == NULL ? 0 : 1);
  }
  mla_set_log_callback(NULL, NULL);
  return now(&children_ok) == 1 ? NULL : "the child hangs, or does not wait";
}

int main(void) {
  static const struct {
    const char *name;
    const char *(*run)(void);
  } tests[] = {{"removal waits", removal_waits},
               {"callbacks that call back", callbacks_that_call_back},
               {"removal in a child", removal_in_a_child},
               {"callbacks that fork", callbacks_that_fork}};
  int failures = 0;
  alarm(60);
  for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); ++i) {
    const char *failed = tests[i].run();
    printf("%s log_callback %s%s%s\n", failed ? "not ok" : "ok", tests[i].name, failed ? ": " : "",
           failed ? failed : "");
    fflush(stdout);
    failures += failed != NULL;
  }
  return failures != 0;
}
