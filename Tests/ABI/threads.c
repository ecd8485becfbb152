/*
 * The library's threads and the host: where they run, what they are called, what is done
 * without them, and whose they are after a fork.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE /* processor sets, namespaces */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "mla_prefill.h"

enum { tokens = 512, heads = 4, dim = 64, skipped = 77 };

static float q[tokens * heads * dim], v[tokens * heads * dim], out[tokens * heads * dim];

/* In the library's way: a host's or a limit's refusal to start threads. */
static int refusing, attempts, warnings;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
  typedef int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  create real;
  void *found = dlsym(RTLD_NEXT, "pthread_create");
  memcpy(&real, &found, sizeof(real));
  ++attempts;
  return refusing ? EAGAIN : real(thread, attributes, start, argument);
}

/* Seconds by which time has gone on. */
static int later;

int clock_gettime(clockid_t clock, struct timespec *now) {
  const int status = (int)syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_MONOTONIC) now->tv_sec += later;
  return status;
}

static void count_warnings(void *context, int32_t level, const char *message) {
  (void)context, (void)message;
  warnings += level == MLA_LOG_WARNING;
}

static mla_tensor view(float *data) {
  mla_tensor tensor = MLA_TENSOR_INIT;
  tensor.dtype = MLA_DTYPE_FLOAT32;
  tensor.data = data;
  tensor.ndim = 3;
  tensor.shape[0] = tokens;
  tensor.shape[1] = heads;
  tensor.shape[2] = tensor.strides[1] = dim;
  tensor.strides[0] = heads * dim;
  tensor.strides[2] = 1;
  return tensor;
}

/** Some runs on all threads; 0 if their results are right. */
static int run(int count) {
  static const int32_t offsets[] = {0, tokens};
  const mla_tensor tq = view(q), tv = view(v), to = view(out);
  mla_backend_config config = MLA_BACKEND_CONFIG_INIT;
  mla_prefill_metadata batch = MLA_PREFILL_METADATA_INIT;
  mla_new_tokens_args args = MLA_NEW_TOKENS_ARGS_INIT;
  mla_backend *backend = NULL;
  int failed;
  config.num_heads = heads;
  config.scale = 0.1;
  config.qk_nope_head_dim = config.v_head_dim = dim;
  batch.num_requests = 1;
  batch.query_start_loc = offsets;
  args.q = args.k = &tq;
  args.v = &tv;
  args.out = &to;
  for (int i = 0; i < tokens * heads * dim; ++i) v[i] = 1;
  failed = mla_backend_create("CPU", &config, &backend) || mla_prepare_metadata(backend, &batch);
  for (int i = 0; i < count && !failed; ++i) failed = mla_run_prefill_new_tokens(backend, &args);
  for (int i = 0; i < tokens * heads * dim && !failed; ++i) failed = out[i] < 0.9999F || out[i] > 1.0001F;
  mla_backend_destroy(backend);
  return failed;
}

/** The library's threads; those that may run on exactly `place`, where it is not NULL. */
static int workers(const cpu_set_t *place) {
  DIR *tasks = opendir("/proc/self/task");
  struct dirent *entry;
  int found = 0;
  while (tasks != NULL && (entry = readdir(tasks)) != NULL) {
    char path[300], name[32] = "";
    FILE *file;
    cpu_set_t allowed;
    snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", entry->d_name);
    file = fopen(path, "r");
    if (file == NULL) continue;
    if (fgets(name, sizeof(name), file) != NULL && strncmp(name, "mla-prefill/", 12) == 0) {
      found += place == NULL ||
               (sched_getaffinity(atoi(entry->d_name), sizeof(allowed), &allowed) == 0 &&
                CPU_EQUAL(place, &allowed));
    }
    fclose(file);
  }
  if (tasks != NULL) closedir(tasks);
  return found;
}

/** Threads begin with a name and a place: waits until `count` have theirs. */
static int workers_become(int count, const cpu_set_t *place) {
  for (int i = 0; i < 2000 && workers(place) != count; ++i) usleep(1000);
  return workers(place) == count;
}

#define REQUIRE(condition)                                  \
  do {                                                      \
    if (!(condition)) {                                     \
      printf("   line %d: %s\n", __LINE__, #condition);     \
      return 1;                                             \
    }                                                       \
  } while (0)

static int have_names(void) {
  REQUIRE(mla_set_num_threads(4) == MLA_OK && run(1) == 0);
  REQUIRE(workers_become(3, NULL));
  return 0;
}

/** What lasts is said once, and tried now and then, not for each run. */
static int cannot_be_had(void) {
  REQUIRE(mla_set_log_callback(count_warnings, NULL) == MLA_OK);
  REQUIRE(mla_set_num_threads(8) == MLA_OK);
  refusing = 1;
  REQUIRE(run(20) == 0);
  REQUIRE(attempts == 1 && warnings == 1 && workers(NULL) == 0);
  later = 11;
  REQUIRE(run(20) == 0 && attempts == 2 && warnings == 1);
  REQUIRE(mla_set_num_threads(4) == MLA_OK && run(20) == 0);
  REQUIRE(attempts == 3 && warnings == 2);
  refusing = 0;
  REQUIRE(run(1) == 0 && workers(NULL) == 0);
  REQUIRE(mla_set_num_threads(4) == MLA_OK && run(1) == 0);
  REQUIRE(workers_become(3, NULL) && warnings == 2);
  return 0;
}

static int processors(void) {
  mla_cpu_info info = MLA_CPU_INFO_INIT;
  return mla_get_cpu_info(&info) == MLA_OK ? info.num_processors : -1;
}

static int follow_the_process(void) {
  cpu_set_t all, one;
  int count, usual;
  sched_getaffinity(0, sizeof(all), &all);
  count = CPU_COUNT(&all);
  CPU_ZERO(&one);
  for (size_t i = 0; CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
  }
  if (count < 2) return skipped;
  REQUIRE(mla_set_num_threads(0) == MLA_OK && processors() == count);
  usual = mla_get_num_threads();
  REQUIRE(mla_set_num_threads(4) == MLA_OK && run(1) == 0 && workers_become(3, &all));
  sched_setaffinity(0, sizeof(one), &one);
  /* Threads of its own say nothing about the process. */
  REQUIRE(processors() == 1 && mla_get_num_threads() == 4);
  REQUIRE(mla_set_num_threads(0) == MLA_OK && mla_get_num_threads() == 1);
  REQUIRE(workers_become(3, &one));
  REQUIRE(mla_set_num_threads(6) == MLA_OK && run(1) == 0 && workers_become(5, &one));
  sched_setaffinity(0, sizeof(all), &all);
  REQUIRE(processors() == count && workers(&one) == 5);
  REQUIRE(mla_set_num_threads(0) == MLA_OK && mla_get_num_threads() == usual);
  REQUIRE(workers_become(5, &all));
  return 0;
}

/** Whether a control group's file takes the text. */
static int put(const char *group, const char *name, const char *text) {
  char path[200];
  FILE *file;
  int taken;
  snprintf(path, sizeof(path), "%s/%s", group, name);
  file = fopen(path, "r+");
  if (file == NULL) return 0;
  taken = fputs(text, file) >= 0;
  return fclose(file) == 0 && taken;
}

/** The default number in a new group below `parent` that has one processor's time, and
    after it; -1 where no such group can be made. */
static int number_in_a_group(const char *parent, int *afterwards) {
  char group[100], process[20];
  int number = -1;
  snprintf(group, sizeof(group), "%s/mla-test-%d", parent, (int)getpid());
  snprintf(process, sizeof(process), "%d", (int)getpid());
  if (mkdir(group, 0777) != 0) return -1;
  if ((put(group, "cpu.max", "100000 100000") || put(group, "cpu.cfs_quota_us", "100000")) &&
      put(group, "cgroup.procs", process)) {
    if (mla_set_num_threads(0) == MLA_OK) number = mla_get_num_threads();
    put(parent, "cgroup.procs", process);
  }
  for (int i = 0; i < 1000 && rmdir(group) != 0; ++i) usleep(1000);
  if (mla_set_num_threads(0) == MLA_OK) *afterwards = mla_get_num_threads();
  return number;
}

static int fit_into_a_control_group(void) {
  static const char *const parents[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup"};
  const int usual = mla_get_num_threads();
  if (usual < 2) return skipped;
  for (int i = 0; i < 2; ++i) {
    int afterwards = 0;
    const int number = number_in_a_group(parents[i], &afterwards);
    if (number < 0) continue;
    REQUIRE(number == 1 && afterwards == usual);
    return 0;
  }
  return skipped;
}

/** The first process of a namespace, whose child is the first of another. */
static int first_process(void) {
  REQUIRE(have_names() == 0);
  REQUIRE(unshare(CLONE_NEWPID) == 0);
  REQUIRE(in_child(have_names) == 0);
  return 0;
}

static int belong_to_a_process(void) {
  pid_t unannounced;
  REQUIRE(have_names() == 0 && in_child(have_names) == 0);
  /* A child of which no fork handler hears. */
  fflush(stdout);
  unannounced = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
  if (unannounced == 0) {
    alarm(30);
    _exit(have_names());
  }
  REQUIRE(status_of(unannounced) == 0);
  if (unshare(CLONE_NEWPID) != 0) return skipped;
  return in_child(first_process);
}

/** Threads started under a mask of the host's have none of its signals. */
static int leave_signals_to_the_host(void) {
  sigset_t before, after;
  sigemptyset(&before);
  sigaddset(&before, SIGUSR1);
  REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
  REQUIRE(have_names() == 0);
  REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
  REQUIRE(sigismember(&after, SIGUSR1) == 1 && sigismember(&after, SIGUSR2) == 0);
  /* glibc's own way of changing the user of all threads is a signal. */
  REQUIRE(setuid(getuid()) == 0 && run(1) == 0);
  return 0;
}

int main(void) {
  static const struct {
    const char *name;
    int (*body)(void);
  } tests[] = {{"have names", have_names},
               {"cannot be had", cannot_be_had},
               {"follow the process", follow_the_process},
               {"fit into a control group", fit_into_a_control_group},
               {"belong to a process", belong_to_a_process},
               {"leave signals to the host", leave_signals_to_the_host}};
  int failures = 0;
  for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); ++i) {
    const int status = in_child(tests[i].body);
    const int failed = status != 0 && status != skipped;
    printf("%s threads %s%s\n", failed ? "not ok" : "ok", tests[i].name,
           status == skipped ? ": skipped, this host does not allow it" : "");
    failures += failed;
  }
  return failures != 0;
}
